"""An outbox that is a dict: for vehicles that never lose power, or lose it all at once."""

import sqlite3

import numpy as np

from vehicle_agent.outbox import Outbox, Waiting


class MemoryOutbox(Outbox):
    """Keeps the contract of the one on disk, and of an empty one next to nothing.

    Residuals are kept as they were given, so nobody may write to them afterwards.
    """

    def __init__(self) -> None:
        # Not the base's: that one opens a file.
        self._frames: dict[tuple[str, int], bytes] = {}
        self._residual: tuple[bytes, np.ndarray] | None = None

    def put(
        self,
        boot: str,
        sequence: int,
        frame: bytes,
        *,
        layout: bytes = b"",
        residual: np.ndarray | None = None,
    ) -> None:
        if (boot, sequence) in self._frames:
            raise sqlite3.IntegrityError(f"update {sequence} of boot {boot!r} is there already")
        self._frames[boot, sequence] = frame
        self._set_residual(layout, residual)

    def waiting(self) -> list[Waiting]:
        return [Waiting(*name, frame) for name, frame in self._frames.items()]

    def frame(self, boot: str, sequence: int) -> bytes | None:
        return self._frames.get((boot, sequence))

    def __len__(self) -> int:
        return len(self._frames)

    def forget(
        self, boot: str, sequence: int, *, layout: bytes = b"", residual: np.ndarray | None = None
    ) -> bool:
        if self._frames.pop((boot, sequence), None) is None:
            return False
        self._set_residual(layout, residual)
        return True

    def residual(self, layout: bytes) -> np.ndarray | None:
        return self._residual[1] if self._residual and self._residual[0] == layout else None

    def _set_residual(self, layout: bytes, residual: np.ndarray | None) -> None:
        if residual is not None:
            self._residual = (layout, residual)

    def close(self) -> None:
        return
