"""An outbox that is a dict: for vehicles that never lose power, or lose it all at once."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleetfl.protocol.messages import Update
from fleetfl.releases.generations import BEFORE_ALL, Order, order_of
from fleetfl.releases.versions import CurrentRelease
from fleetfl.vectors import Layout
from vehicle_agent.outbox import (
    Config,
    Memory,
    Name,
    Newest,
    Outbox,
    Produced,
    Verdict,
    Waiting,
    counted,
    expired_updates,
)


@dataclass(frozen=True)
class _Kept:
    frame: bytes
    generation: str
    base_version: int
    made_s: float


class MemoryOutbox(Outbox):
    """Keeps the contract of the one on disk but for the record, and of an empty one next to nothing.

    Residuals are kept as they were given, so nobody may write to them afterwards. `now` gives seconds;
    without it nothing gets old.
    """

    def __init__(
        self, bounds: Config | None = None, *, now: Callable[[], float] = lambda: 0.0
    ) -> None:
        # Not the base's: that one opens a file.
        self.bounds, self.now = bounds or Config(), now
        self.outcomes: dict[str, int] = {}
        self._kept: dict[Name, _Kept] = {}
        self._residual: tuple[bytes, np.ndarray] | None = None
        self._memory = Memory()
        self._held: tuple[bytes, CurrentRelease] | None = None

    def put(
        self,
        update: Update,
        frame: bytes,
        *,
        residual: np.ndarray | None = None,
        memory: Memory | None = None,
        held: CurrentRelease | None = None,
    ) -> None:
        name = (update.boot, update.sequence)
        if name in self._kept:
            raise sqlite3.IntegrityError(f"update {name} is there already")
        self._kept[name] = _Kept(frame, update.generation, update.base_version, self.now())
        self._set_residual(update.layout, residual)
        self._memory = memory or self._memory
        self._held = (update.layout, held) if held else self._held

    def resolve(
        self,
        boot: str,
        sequence: int,
        verdict: Verdict,
        reason: str = "",
        *,
        layout: bytes = b"",
        residual: np.ndarray | None = None,
    ) -> bool:
        if self._kept.pop((boot, sequence), None) is None:
            return False
        self.outcomes = counted(self.outcomes, verdict, reason)
        self._set_residual(layout, residual)
        return True

    def expired_updates(self, newest: Newest | None) -> list[tuple[Waiting, str]]:
        return expired_updates(self.waiting(), self.bounds, newest) if self._kept else []

    def waiting(self) -> list[Waiting]:
        now = self.now()
        return [
            Waiting(*name, kept.generation, kept.base_version, len(kept.frame), now - kept.made_s)
            for name, kept in self._kept.items()
        ]

    def frame(self, boot: str, sequence: int) -> bytes | None:
        kept = self._kept.get((boot, sequence))
        return kept and kept.frame

    def __len__(self) -> int:
        return len(self._kept)

    def produced(self, after: int = 0) -> list[Produced]:
        """Nothing: it keeps no record."""
        return []

    def residual(self, layout: bytes) -> np.ndarray | None:
        return self._residual[1] if self._residual and self._residual[0] == layout else None

    def memory(self) -> Memory:
        return self._memory

    def held(self, layout: Layout) -> CurrentRelease | None:
        kept = self._held
        return kept[1] if kept and kept[0] == layout.fingerprint else None

    def floor(self) -> Order:
        return BEFORE_ALL if self._held is None else order_of(self._held[1])

    def _set_residual(self, layout: bytes, residual: np.ndarray | None) -> None:
        if residual is not None:
            self._residual = (layout, residual)

    def close(self) -> None:
        return
