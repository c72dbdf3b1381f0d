"""Release files: tensors as safetensors, and in the header the record of the release's origin.

The vector has to have the SHA-256 that the release named, and the record one of its own. A file whose
digests do not fit is never loaded.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fleetfl import FleetflError
from fleetfl.coordination.deduplication import Contribution
from fleetfl.registry.adapter_file import (
    MEANING,
    AdapterFileError,
    adapter_bytes,
    read_about,
    read_adapter,
)
from fleetfl.storage.atomic_write import write_durably
from fleetfl.vectors import Layout, digest


class ReleaseFileError(FleetflError, ValueError):
    """A file that is not the release it should be; names it and what is wrong."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of a release. The same rows of the journal give the same record."""

    generation: str = msgspec.field(name="lineage")  # its name on disk since the first version
    """Name of the generation of versions that it belongs to."""
    version: int
    """Version of the release in its generation."""
    parent: str | None
    """GENERATION/VERSION of the release before; None for the first of all, or if it is no longer known."""
    restores: str | None = None
    """GENERATION/VERSION of the release whose bits this one has; None unless it is a rollback."""
    reason: str = ""
    """Reason for a rollback, in the words of whoever asked."""
    sha256: str
    """SHA-256 of the float32 vector, in hexadecimal, as the release named it."""
    layout: str
    """Fingerprint of the vector's layout, in hexadecimal."""
    num_values: int
    """Number of values in the vector."""
    created: float
    """Time, UTC seconds, at which the update that completed it was kept."""
    row: int
    """Journal row of that update."""
    updates: tuple[Contribution, ...] | None
    """Updates that it was made of, in the order in which they were counted; None if no longer known."""
    config: str
    """Fingerprint of the settings that it was made with."""
    code: str
    """Version, and commit if known, of the code that made it."""

    @property
    def name(self) -> str:
        """GENERATION/VERSION of the release."""
        return named(self.generation, self.version)


def named(generation: str, version: int) -> str:
    """Unique name of a release, GENERATION/VERSION."""
    return f"{generation}/{version}"


def write_release(path: Path, record: Record, layout: Layout, vector: np.ndarray) -> None:
    """Write the file of `release_bytes` whole or not at all. Raises OSError."""
    write_durably(path, release_bytes(record, layout, vector))


def release_bytes(record: Record, layout: Layout, vector: np.ndarray) -> bytes:
    """Content of a release's file; the same arguments give the same bytes."""
    content = msgspec.to_builtins(record)
    return adapter_bytes(layout, vector, fleetfl={"record": content, "sha256": _digest(content)})


def read_release(path: Path) -> tuple[Record, Layout, np.ndarray]:
    """Record, layout and vector, float32 [P]. Raises ReleaseFileError if it is missing or not as written."""
    record = read_record(path)
    try:
        layout, vector = read_adapter(path)
    except AdapterFileError as unfit:
        raise ReleaseFileError(f"release {path} is DAMAGED: {unfit}") from unfit
    for what, found, expected in (
        ("layout", layout.fingerprint.hex(), record.layout),
        ("SHA-256", digest(vector).hex(), record.sha256),
    ):
        if found != expected:
            raise ReleaseFileError(f"release {path} is DAMAGED: {what} {found}, not {expected}")
    return record, layout, vector


def read_record(path: Path) -> Record:
    """The record alone, without reading the tensors. Raises ReleaseFileError."""
    try:
        header = read_about(path)
        if header.keys() - {"fleetfl", MEANING}:
            raise ValueError(f"entries {sorted(header)}")
        about = json.loads(header["fleetfl"])
        content, expected = about["record"], about["sha256"]
        record, found = msgspec.convert(content, Record), _digest(content)
    except Exception as odd:
        raise ReleaseFileError(f"release {path} has no record that can be read: {odd}") from odd
    if found != expected:
        raise ReleaseFileError(f"release {path} is DAMAGED: record {found}, not {expected}")
    return record


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
