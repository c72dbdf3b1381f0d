"""Checkpoints of the server's state, whole or not at all. Knows no model; nothing is unpickled.

    offset 0   b"FFC1"
           4   SHA-256 of all that follows
          36   msgpack; an array is extension 1: [dtype, shape, bytes]

Arrays are read as they were written, to the bit.
"""

import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fleetfl import FleetflError
from fleetfl.plain_files import content_of
from fleetfl.storage.atomic_write import write_durably

log = logging.getLogger(__name__)

MAGIC = b"FFC1"
KEPT = 2
"""Number of checkpoints that stay: the newest, and the one before in case the newest is damaged."""
ARRAY = 1


class CheckpointError(FleetflError, RuntimeError):
    """A checkpoint that cannot be written, or none that can be read; names the file and why."""


class Checkpoints:
    """Files ROW.checkpoint in one folder: the state after all rows of the journal up to ROW."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set_aside: list[str] = []
        """Description of each damaged file that `newest` set aside."""

    def write(self, row: int, state: Any) -> None:
        """Write a checkpoint; it is on disk on return. Raises CheckpointError, and the others are as
        before.
        """
        content = _encoder.encode(state)
        path = self.folder / f"{row:020d}.checkpoint"
        try:
            write_durably(path, MAGIC + sha256(content).digest() + content)
            for old in self._paths()[:-KEPT]:
                old.unlink()
        except OSError as failed:
            raise CheckpointError(f"checkpoint {path}: {failed.strerror}") from failed

    def newest(self) -> tuple[int, Any] | None:
        """Row and state of the newest whole checkpoint; None if none was ever written.

        Damaged ones are set aside. Raises CheckpointError if there are no others.
        """
        damaged = list(self.folder.glob("*.damaged"))
        for path in reversed(self._paths()):
            try:
                return int(path.stem), _state(path)
            except CheckpointError as broken:
                log.error("%s: set aside, the one before is used", broken)
                self.set_aside.append(str(broken))
                damaged.append(path.replace(path.with_suffix(".damaged")))
        if damaged:
            names = ", ".join(path.name for path in damaged)
            raise CheckpointError(f"{self.folder}: no whole checkpoint, only {names}")
        return None

    @property
    def safe_row(self) -> int:
        """Last row of the journal that no recovery reads: every checkpoint kept has counted it. 0 if
        unknown.
        """
        paths = self._paths()
        return int(paths[0].stem) if len(paths) == KEPT else 0

    def _paths(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.checkpoint") if p.stem.isdecimal())


def _state(path: Path) -> Any:
    try:
        whole = content_of(path)
    except OSError as failed:
        raise CheckpointError(f"checkpoint {path}: {failed.strerror}") from failed
    content = memoryview(whole)[36:]
    if whole[:4] != MAGIC or whole[4:36] != sha256(content).digest():
        raise CheckpointError(f"checkpoint {path} of {len(whole)} bytes is damaged")
    try:
        return _decoder.decode(content)
    except Exception as odd:  # whole, and of no version that this one reads
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {type(odd).__name__}: {odd}"
        ) from odd


def _packed(value: Any) -> msgspec.msgpack.Ext:
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"a {type(value).__name__} in a checkpoint, expected plain values and arrays"
        )
    about = (value.dtype.str, value.shape, value.tobytes())
    return msgspec.msgpack.Ext(ARRAY, msgspec.msgpack.encode(about))


def _unpacked(code: int, data: memoryview) -> np.ndarray:
    dtype, shape, values = msgspec.msgpack.decode(data, type=tuple[str, tuple[int, ...], bytes])
    return np.frombuffer(values, dtype).reshape(shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_packed)
_decoder = msgspec.msgpack.Decoder(ext_hook=_unpacked)
