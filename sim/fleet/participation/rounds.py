"""Synchronous rounds: a cohort trains, its fastest make the release, the others are called off.

With `fedavg` (or FedBuff and a goal of `cohort / (1 + over_selection)`) this is synchronous FedAvg as
Google's fleets run it, with 30 % over-selection (arXiv:1902.01046).
"""

import asyncio
import functools
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from sim.fleet.participation import ONE_TRAINING, ParticipationConfig, Spawn
from sim.fleet.participation._pool import Pool
from sim.fleet.vehicle import Ending, VirtualVehicle


class Config(ParticipationConfig):
    passes_over: ClassVar = ONE_TRAINING
    """Settings of a virtual fleet, by path, that this kind does not use, and the reason."""

    kind: Literal["rounds"] = "rounds"
    cohort: int = Field(default=26, ge=1)
    """Vehicles at work in a round, those that over-selection adds among them."""
    zipf: float = Field(default=0.0, ge=0)
    """Exponent of the weights they are drawn by; 0 draws all alike."""
    lease_s: float = Field(default=600.0, gt=0)
    """The place of a vehicle that was lost is given to another so long after it began."""

    def require_enough(self, wanted: int, num_vehicles: int, setting: str) -> None:
        most = min(self.cohort, num_vehicles)
        if most < wanted:
            raise ValueError(
                f"{most} vehicles at work in a round, expected {setting} or more: {wanted}"
            )

    def build(self, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int) -> "Rounds":
        return Rounds(self, vehicles, spawn, seed=seed)


class Rounds:
    def __init__(
        self, config: Config, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int
    ) -> None:
        self.config, self.vehicles, self.spawn = config, vehicles, spawn
        self.round, self.places = 0, config.cohort
        self.at_work: dict[int, Callable[[], None]] = {}
        """How to call them off."""
        self.pool = Pool(vehicles, zipf=config.zipf, seed=seed, came=self._fill)

    def start(self) -> None:
        self.pool.start()

    def released(self, version: int) -> None:
        # Later, so that the vehicle whose update made the release gets its receipt.
        asyncio.get_running_loop().call_later(1e-3, self._next_round)

    def _next_round(self) -> None:
        self.round += 1
        for call_off in self.at_work.values():
            call_off()
        self.at_work.clear()
        self.places = self.config.cohort
        self._fill()

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.places and (number := self.pool.taken()) is not None:
            self.places -= 1
            session = self.vehicles[number].session(trainings=1, until_s=self.pool.until_s[number])
            ended = functools.partial(self._ended, number, self.round, now)
            self.at_work[number] = self.spawn(session, ended)

    def _ended(self, number: int, its_round: int, began: float, how: Ending) -> None:
        loop = asyncio.get_running_loop()
        self.pool.give_back(number)
        if its_round == self.round:
            del self.at_work[number]
        if how == "lost":
            at = max(loop.time(), began + self.config.lease_s)
            loop.call_at(at, self._replace, its_round)
        elif how == "off":
            self._replace(its_round)
        else:
            self._fill()

    def _replace(self, its_round: int) -> None:
        self.places += its_round == self.round
        self._fill()
