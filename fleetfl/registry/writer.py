"""Writes releases into the registry and deletes those that need not stay; only the aggregator does so."""

import contextlib
import logging
from typing import Any

import msgspec
import numpy as np

from fleetfl.plain_files import content_of
from fleetfl.registry.registry import Registry, RegistryError, fingerprint_of
from fleetfl.registry.release_file import (
    Record,
    ReleaseFileError,
    named,
    read_record,
    read_release,
    release_bytes,
)
from fleetfl.registry.retention import Config, retained
from fleetfl.storage.atomic_write import sync, write_durably, write_whole
from fleetfl.vectors import Layout

log = logging.getLogger(__name__)


class Registrar:
    """Queue of releases for the registry: `add` is cheap; `flush` writes, and may run in another thread.

    `settings`, plain values, are those that the releases are made with.
    """

    def __init__(self, registry: Registry, config: Config, settings: dict[str, Any]) -> None:
        self.registry, self.config = registry, config
        self.settings = msgspec.json.format(msgspec.json.encode(settings, order="sorted"))
        self.fingerprint = fingerprint_of(self.settings)
        self.waiting: dict[str, tuple[Record, Layout, np.ndarray]] = {}
        self.rollbacks: dict[str, set[int]] = {}
        """Versions that were rolled back to, and those that did so, by generation."""

    def add(self, record: Record, layout: Layout, vector: np.ndarray) -> None:
        """Queue a release for the next `flush`. The vector, float32 [P], may not change any more."""
        self.waiting[record.name] = (record, layout, vector)
        version = record.version - self.config.newest
        overtaken = self.waiting.get(named(record.generation, version))
        if overtaken is None or overtaken[0].restores is not None:
            return
        if not self.config.outlives(version, record.version):  # not worth a write any more
            del self.waiting[overtaken[0].name]

    def forget(self, name: str) -> None:
        """Take the release out of the queue if it was not written yet."""
        self.waiting.pop(name, None)

    def flush(self) -> None:
        """Write all queued releases; they are on disk on return. Raises RegistryError, and all still wait
        then.
        """
        batch = list(self.waiting.values())
        if not batch:
            return
        generations = {record.generation for record, _, _ in batch}
        try:
            self._write_settings()
            for record, layout, vector in batch:
                self._write(record, layout, vector)
            for generation in generations:  # once for all: half the syncs of a busy server
                sync(self.registry.folder / generation)
            for record, _, _ in batch:
                self._note_rollback(record)
            for generation in generations:
                self._prune(generation)
        except OSError as failed:
            names = f"release {batch[0][0].name} and {len(batch) - 1} after it"
            raise RegistryError(f"{names} are not in {self.registry.folder}: {failed}") from failed
        for record, _, _ in batch:
            self.waiting.pop(record.name, None)

    def _write_settings(self) -> None:
        path = self.registry.config_path(self.fingerprint)
        if not path.exists() or content_of(path) != self.settings:
            write_durably(path, self.settings)

    def _write(self, record: Record, layout: Layout, vector: np.ndarray) -> None:
        path = self.registry.path(record.generation, record.version)
        if path.exists():
            try:
                there = read_release(path)[0]
            except ReleaseFileError as damaged:
                log.error("%s: written again", damaged)
            else:
                if there.sha256 == record.sha256:
                    return  # a replay: it stays as it was made at first
                log.error("%s came again with other bits, %s: replaced", path, record.sha256)
        write_whole(path, release_bytes(record, layout, vector))

    def _prune(self, generation: str) -> None:
        sizes = {v: path.stat().st_size for v, path in self.registry.paths(generation).items()}
        scores = {version: s.accuracy for version, s in self.registry.all_scores(generation)}
        # Scores may come before their release is flushed, and after it was deleted.
        scored = [(scores[version], version) for version in scores.keys() & sizes.keys()]
        best = {max(scored)[1]} if scored else set()
        staying = retained(sizes, self._rollbacks(generation) | best, self.config)
        late = {version for version in scores if version < max(sizes)}
        for version in (sizes.keys() | late) - staying:
            self.registry.delete(generation, version)

    def _rollbacks(self, generation: str) -> set[int]:
        if generation not in self.rollbacks:
            self.rollbacks[generation] = set()
            for path in self.registry.paths(generation).values():
                with contextlib.suppress(ReleaseFileError):  # said by whoever reads it
                    self._note_rollback(read_record(path))
        return self.rollbacks[generation]

    def _note_rollback(self, record: Record) -> None:
        generation, _, version = (record.restores or "").rpartition("/")
        for name, number in ((generation, version), (record.generation, record.version)):
            if generation and name in self.rollbacks and str(number).isdecimal():
                self.rollbacks[name].add(int(number))
