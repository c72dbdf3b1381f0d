"""SIGKILL to a vehicle's agent, which starts again on what it had on disk."""

import random
from typing import Literal

from sim.chaos.faults import FaultConfig, Hit
from sim.chaos.stage import Stage


class Config(FaultConfig):
    kind: Literal["vehicle"] = "vehicle"

    def strike(self, stage: Stage, rng: random.Random) -> Hit:
        vehicle = rng.choice(stage.vehicles)
        vehicle.kill()
        return Hit(vehicle.start, vehicle.name)
