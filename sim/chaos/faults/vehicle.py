"""Fault of a vehicle: its agent gets SIGKILL, then restarts on its files."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Kill the agent of one vehicle."""

    kind: Literal["vehicle"] = "vehicle"

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        vehicle = rng.choice(testbed.vehicles)
        vehicle.kill()
        return ActiveFault(vehicle.start, vehicle.name)
