"""Every vehicle trains again and again for as long as it is switched on."""

import asyncio
import functools
from typing import Literal

from sim.fleet.participation import ParticipationConfig, Spawn
from sim.fleet.vehicle import Ending, VirtualVehicle


class Config(ParticipationConfig):
    kind: Literal["continuous"] = "continuous"

    def build(self, vehicles: list[VirtualVehicle], spawn: Spawn, *, seed: int) -> "Continuous":
        return Continuous(vehicles, spawn)


class Continuous:
    def __init__(self, vehicles: list[VirtualVehicle], spawn: Spawn) -> None:
        self.vehicles, self.spawn = vehicles, spawn

    def start(self) -> None:
        for vehicle in self.vehicles:
            self._sleep(vehicle)

    def released(self, version: int) -> None:
        return

    def _sleep(self, vehicle: VirtualVehicle) -> None:
        loop = asyncio.get_running_loop()
        for begin, end in vehicle.windows:
            if end > loop.time():
                loop.call_at(max(begin, loop.time()), self._wake, vehicle, end)
                return

    def _wake(self, vehicle: VirtualVehicle, until_s: float) -> None:
        self.spawn(
            vehicle.session(until_s=until_s), functools.partial(self._ended, vehicle, until_s)
        )

    def _ended(self, vehicle: VirtualVehicle, until_s: float, how: Ending) -> None:
        if how == "lost" and asyncio.get_running_loop().time() < until_s:
            self._wake(vehicle, until_s)  # switched on again
        else:
            self._sleep(vehicle)
