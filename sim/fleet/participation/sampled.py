"""So many train at a time: whenever one is done, another is drawn, some far more often than others.

This is FedBuff's concurrency (arXiv:2106.06639), with the skew of participation that fleets have: the
vehicle of rank r has the weight r^-zipf.
"""

import asyncio
import functools
from typing import ClassVar, Literal

from pydantic import Field

from sim.fleet.participation import ONE_TRAINING, ParticipationConfig, Spawn
from sim.fleet.participation._pool import Pool
from sim.fleet.vehicle import Ending, VirtualVehicle


class Config(ParticipationConfig):
    passes_over: ClassVar = ONE_TRAINING
    """Settings of a virtual fleet, by path, that this kind does not use, and the reason."""

    kind: Literal["sampled"] = "sampled"
    concurrency: int = Field(default=20, ge=1)
    """Vehicles at work at a time."""
    zipf: float = Field(default=0.0, ge=0)
    """Exponent of the weights they are drawn by; 0 draws all alike."""
    lease_s: float = Field(default=600.0, gt=0)
    """The place of a vehicle that was lost is given to another so long after it began."""

    def build(self, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int) -> "Sampled":
        return Sampled(self, vehicles, spawn, seed=seed)


class Sampled:
    def __init__(
        self, config: Config, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int
    ) -> None:
        self.config, self.vehicles, self.spawn = config, vehicles, spawn
        self.places = config.concurrency
        self.pool = Pool(vehicles, zipf=config.zipf, seed=seed, came=self._fill)

    def start(self) -> None:
        self.pool.start()

    def released(self, version: int) -> None:
        return

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.places and (number := self.pool.taken()) is not None:
            self.places -= 1
            session = self.vehicles[number].session(trainings=1, until_s=self.pool.until_s[number])
            self.spawn(session, functools.partial(self._ended, number, now))

    def _ended(self, number: int, began: float, how: Ending) -> None:
        loop = asyncio.get_running_loop()
        self.pool.give_back(number)
        if how == "lost":
            # The server does not know that nothing will come.
            loop.call_at(max(loop.time(), began + self.config.lease_s), self._free_place)
        else:
            self._free_place()

    def _free_place(self) -> None:
        self.places += 1
        self._fill()
