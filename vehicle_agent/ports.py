"""Ports of an agent to its sensor and trainer: calls that it can wait for. Knows no camera and no torch.

A vehicle's own sensor and trainer block, so `SensorAside` and `TrainerAside` run them in a thread. A
simulation brings ports whose calls last as long as they would on the vehicle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import numpy as np

from fleetfl import FleetflError
from vehicle_agent.sensors import Frames, SensorError, SensorSource, checked, passed_over
from vehicle_agent.training import LocalTraining, Summed, Training

Work = Callable[..., Awaitable[Any]]
"""Runs a blocking call aside, such as `asyncio.to_thread`."""


class SensorPort(Protocol):
    """The frames that an agent trains on."""

    @property
    def note(self) -> str:
        """Frames that were passed over and why, in words; empty if there were none."""
        ...

    async def read(self, count: int) -> Frames:
        """Give the next `count` frames. Raises SensorError and no other error."""
        ...


class TrainerPort(Protocol):
    """The local training of an agent."""

    async def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        """Train from `start`, float32 [P], on the frames."""
        ...

    async def sums(self, vector: np.ndarray, frames: Frames) -> Summed | None:
        """Sum the features that `vector`, float32 [P], makes of the frames; None if it cannot."""
        ...


Sums = Callable[[np.ndarray, Frames], Summed]
"""Sums features that a vector, float32 [P], makes of frames; blocks until that is done."""


class SensorAside:
    """A SensorPort around a source whose reading blocks."""

    def __init__(self, source: SensorSource, work: Work = asyncio.to_thread) -> None:
        self.source, self.work = source, work

    @property
    def note(self) -> str:
        return passed_over(self.source)

    async def read(self, count: int) -> Frames:
        try:
            return checked(await self.work(self.source.read, count))
        except SensorError:
            raise
        except Exception as broken:  # anybody may have written the source
            raise SensorError(f"{type(self.source).__name__}: {said(broken)}") from broken


class TrainerAside:
    """A TrainerPort around one whose training blocks; `sums` is its way to sum features, if it has one."""

    def __init__(
        self,
        trainer: Training,
        sums: Sums | None = None,
        *,
        work: Work = asyncio.to_thread,
    ) -> None:
        self.trainer, self.sum_features, self.work = trainer, sums, work

    async def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        return await self.work(self.trainer.train, start, frames, seed=seed)

    async def sums(self, vector: np.ndarray, frames: Frames) -> Summed | None:
        if self.sum_features is None:
            return None
        return await self.work(self.sum_features, vector, frames)


def said(error: Exception) -> str:
    """The error in words; of one that is not ours, its kind too."""
    return str(error) if isinstance(error, FleetflError) else f"{type(error).__name__}: {error}"
