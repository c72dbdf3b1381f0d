"""SIGKILL to a vehicle's agent, which starts again on what it had on disk."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import Testbed


class Config(FaultConfig):
    kind: Literal["vehicle"] = "vehicle"

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        vehicle = rng.choice(stage.vehicles)
        vehicle.kill()
        return ActiveFault(vehicle.start, vehicle.name)
