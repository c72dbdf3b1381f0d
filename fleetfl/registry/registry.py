"""Releases on disk with their origin and scores. Knows no server and no model.

    {generation}/{version}.safetensors     tensors and record: release_file.py
    {generation}/{version}.scores.json     scores on held-out frames
    configs/{fingerprint}.json          settings, once for all releases that were made with them

The aggregator writes releases (registrar.py), the evaluator scores; anybody may read meanwhile.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from fleetfl import FleetflError
from fleetfl.plain_files import content_of
from fleetfl.registry.release_file import Record, ReleaseFileError, named, read_release
from fleetfl.storage.atomic_write import write_durably

log = logging.getLogger(__name__)


class RegistryError(FleetflError, RuntimeError):
    """A release that is not there or cannot be kept; names it, and what there is."""


class Scores(msgspec.Struct, frozen=True):
    """Scores of a release on held-out frames, as shares from 0 to 1."""

    sha256: str
    """SHA-256 of the vector that was scored, in hexadecimal."""
    accuracy: float
    """Share of frames that were classified right."""
    by_condition: dict[str, float]
    """Share of frames that were classified right, for each weather condition."""


@dataclass(frozen=True)
class Entry:
    """A release on disk, whole or damaged."""

    generation: str
    version: int
    path: Path
    num_bytes: int
    record: Record | None
    """Record of its origin; None if the file is damaged."""
    damage: str
    """Description of the damage; empty if there is none."""
    scores: Scores | None
    """Scores of these bits; None if they were not scored."""

    @property
    def name(self) -> str:
        """GENERATION/VERSION of the release."""
        return named(self.generation, self.version)


class Registry:
    """The releases in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_server(cls, state: Path) -> "Registry":
        """The registry in a server's state folder."""
        return cls(state / "registry")

    def path(self, generation: str, version: int) -> Path:
        """Path of a release's file, whether it is there or not."""
        return self.folder / generation / f"{version:08d}.safetensors"

    def paths(self, generation: str) -> dict[int, Path]:
        """Paths of a generation's releases, by version."""
        found = (self.folder / generation).glob("[0-9]*.safetensors")
        return {int(path.stem): path for path in sorted(found) if path.stem.isdecimal()}

    def generations(self) -> list[str]:
        """Names of the generations that have releases here."""
        return [path.name for path in self.folder.glob("*") if path.is_dir()]

    def entries(self) -> list[Entry]:
        """All releases, oldest first; each is read whole, so that damage shows."""
        generations = [self._generation(name) for name in self.generations()]
        return [entry for entries in sorted(generations, key=_last_made) for entry in entries]

    def _generation(self, generation: str) -> list[Entry]:
        found = []
        for version in self.paths(generation):
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                found.append(self._entry(generation, version))
        return found

    def _entry(self, generation: str, version: int) -> Entry:
        path, record, damage, scores = self.path(generation, version), None, "", None
        num_bytes = path.stat().st_size
        try:
            record = read_release(path)[0]
            scores = self.scores(record)
        except ReleaseFileError as damaged:
            log.error("%s", damaged)
            damage = str(damaged)
        return Entry(generation, version, path, num_bytes, record, damage, scores)

    def find(self, name: str) -> Entry:
        """The release named by VERSION of the newest generation, GENERATION/VERSION, `newest` or `best`.

        Raises RegistryError if it is not there, ReleaseFileError if it is damaged.
        """
        entries = self.required()
        entry = _chosen(entries, name)
        if entry is None:
            raise RegistryError(f"{name} is not in {self.folder}: {_summary(entries)}")
        if entry.record is None:
            raise ReleaseFileError(entry.damage)
        return entry

    def required(self) -> list[Entry]:
        """All releases, oldest first. Raises RegistryError if there are none."""
        entries = self.entries()
        if not entries:
            raise RegistryError(f"there are no releases in {self.folder}")
        return entries

    def scores(self, record: Record) -> Scores | None:
        """Scores of the release; None if it was not scored with these bits."""
        found = self._read_scores(self._scores_path(record.generation, record.version))
        return found if found is not None and found.sha256 == record.sha256 else None

    def all_scores(self, generation: str) -> Iterator[tuple[int, Scores]]:
        """Version and scores of each scored release of a generation, in no order."""
        for path in (self.folder / generation).glob("*.scores.json"):
            found = self._read_scores(path)
            version = path.name.split(".")[0]
            if found is not None and version.isdecimal():
                yield int(version), found

    def _read_scores(self, path: Path) -> Scores | None:
        try:
            return msgspec.json.decode(content_of(path), type=Scores)
        except FileNotFoundError:
            return None
        except Exception as damaged:
            log.error("%s is DAMAGED: %s", path, damaged)
            return None

    def score(self, generation: str, version: int, scores: Scores) -> None:
        """Write the scores of a release, over older ones. Raises RegistryError."""
        path = self._scores_path(generation, version)
        try:
            write_durably(path, msgspec.json.format(msgspec.json.encode(scores)) + b"\n")
        except OSError as failed:
            raise RegistryError(f"{path} cannot be written: {failed.strerror}") from failed

    def delete(self, generation: str, version: int) -> None:
        """Delete a release and its scores."""
        self.path(generation, version).unlink(missing_ok=True)
        self._scores_path(generation, version).unlink(missing_ok=True)

    def config_path(self, fingerprint: str) -> Path:
        """Path of the settings with this fingerprint."""
        return self.folder / "configs" / f"{fingerprint}.json"

    def config(self, fingerprint: str) -> dict[str, Any]:
        """The settings of that fingerprint. Raises RegistryError if they are gone or damaged."""
        path = self.config_path(fingerprint)
        try:
            content = content_of(path)
        except OSError as missing:
            raise RegistryError(f"settings {path}: {missing.strerror}") from missing
        if fingerprint_of(content) != fingerprint:
            raise RegistryError(f"settings {path} are DAMAGED: SHA-256 is another one")
        try:
            return msgspec.json.decode(content, type=dict[str, Any])
        except Exception as odd:
            raise RegistryError(f"settings {path} cannot be read: {odd}") from odd

    def _scores_path(self, generation: str, version: int) -> Path:
        return self.folder / generation / f"{version:08d}.scores.json"


def fingerprint_of(content: bytes) -> str:
    """Fingerprint of settings: 16 hexadecimal digits of their SHA-256."""
    return sha256(content).hexdigest()[:16]


def _last_made(entries: list[Entry]) -> float:
    return max((e.record.created for e in entries if e.record is not None), default=0.0)


def best_of(entries: list[Entry]) -> Entry | None:
    """The release with the best accuracy, the newest of equals; None if none was scored."""
    scored = [(e.scores.accuracy, at) for at, e in enumerate(entries) if e.scores is not None]
    return entries[max(scored)[1]] if scored else None


def _chosen(entries: list[Entry], name: str) -> Entry | None:
    if name == "newest":
        return entries[-1]
    if name == "best":
        return best_of(entries)
    full = name if "/" in name else f"{entries[-1].generation}/{name}"
    return next((entry for entry in entries if entry.name == full), None)


def _summary(entries: list[Entry]) -> str:
    names = [entry.name for entry in entries]
    shown = names if len(names) <= 6 else [*names[:3], "...", *names[-3:]]
    scored = "" if best_of(entries) else ", none of them scored"
    return f"there are {', '.join(shown)}{scored}"
