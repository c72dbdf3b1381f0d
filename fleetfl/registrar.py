"""Writes releases into the registry, and deletes those that need not stay. Only the aggregator has one."""

import contextlib
import logging
from typing import Any

import msgspec
import numpy as np

from fleetfl.durable import sync, write_durably, write_whole
from fleetfl.registry import Registry, RegistryError, fingerprint_of
from fleetfl.release_file import (
    Record,
    ReleaseFileError,
    named,
    read_record,
    read_release,
    release_bytes,
)
from fleetfl.retention import Config, retained
from fleetfl.vectors import Layout

log = logging.getLogger(__name__)


class Registrar:
    """`add` costs nothing; `flush` writes, and may run in a thread of its own meanwhile.

    `settings`, plain values, are what the releases are made with.
    """

    def __init__(self, registry: Registry, config: Config, settings: dict[str, Any]) -> None:
        self.registry, self.config = registry, config
        self.settings = msgspec.json.format(msgspec.json.encode(settings, order="sorted"))
        self.fingerprint = fingerprint_of(self.settings)
        self.waiting: dict[str, tuple[Record, Layout, np.ndarray]] = {}
        self.rollbacks: dict[str, set[int]] = {}
        """By lineage: versions that were rolled back to, and those that did it."""

    def add(self, record: Record, layout: Layout, vector: np.ndarray) -> None:
        """For the next `flush`. The vector, float32 [P], may not change any more."""
        self.waiting[record.name] = (record, layout, vector)
        overtaken = record.version - self.config.newest
        if not self.config.outlives(overtaken, record.version):  # not worth a write any more
            self.waiting.pop(named(record.lineage, overtaken), None)

    def flush(self) -> None:
        """Returns once all that was added is on disk. Raises RegistryError; it all still waits then."""
        batch = list(self.waiting.values())
        if not batch:
            return
        lineages = {record.lineage for record, _, _ in batch}
        try:
            self._write_settings()
            for record, layout, vector in batch:
                self._write(record, layout, vector)
            for lineage in lineages:  # once for all: half the syncs of a busy server
                sync(self.registry.folder / lineage)
        except OSError as failed:
            names = f"release {batch[0][0].name} and {len(batch) - 1} after it"
            raise RegistryError(f"{names} are not in {self.registry.folder}: {failed}") from failed
        for record, _, _ in batch:
            self.waiting.pop(record.name, None)
            self._note_rollback(record)
        for lineage in lineages:
            self._prune(lineage)

    def _write_settings(self) -> None:
        path = self.registry.config_path(self.fingerprint)
        if not path.exists() or path.read_bytes() != self.settings:
            write_durably(path, self.settings)

    def _write(self, record: Record, layout: Layout, vector: np.ndarray) -> None:
        path = self.registry.path(record.lineage, record.version)
        if path.exists():
            try:
                there = read_release(path)[0]
            except ReleaseFileError as damaged:
                log.error("%s: written anew", damaged)
            else:
                if there.sha256 == record.sha256:
                    return  # a replay: it stays as it was made at first
                log.error("%s came again with other bits, %s: replaced", path, record.sha256)
        write_whole(path, release_bytes(record, layout, vector))

    def _prune(self, lineage: str) -> None:
        scores = {version: s.accuracy for version, s in self.registry.all_scores(lineage)}
        best = {max(scores, key=lambda version: (scores[version], version))} if scores else set()
        sizes = {v: path.stat().st_size for v, path in self.registry.paths(lineage).items()}
        staying = retained(sizes, self._rollbacks(lineage) | best, self.config)
        for version in sizes.keys() - staying:
            self.registry.delete(lineage, version)

    def _rollbacks(self, lineage: str) -> set[int]:
        if lineage not in self.rollbacks:
            self.rollbacks[lineage] = set()
            for path in self.registry.paths(lineage).values():
                with contextlib.suppress(ReleaseFileError):  # said by whoever reads it
                    self._note_rollback(read_record(path))
        return self.rollbacks[lineage]

    def _note_rollback(self, record: Record) -> None:
        lineage, _, version = (record.restores or "").rpartition("/")
        for name, number in ((lineage, version), (record.lineage, record.version)):
            if lineage and name in self.rollbacks:
                self.rollbacks[name].add(int(number))
