"""A vehicle's clock jumps, and back again."""

import random
from typing import Literal

from sim.chaos.faults import FaultConfig, Hit
from sim.chaos.stage import Stage


class Config(FaultConfig):
    kind: Literal["clock"] = "clock"
    by_s: float = 86_400.0
    """Forward, or back if negative."""

    def strike(self, stage: Stage, rng: random.Random) -> Hit:
        vehicle = rng.choice(stage.vehicles)
        vehicle.order(clock_s=self.by_s)
        return Hit(lambda: vehicle.order(clock_s=0.0), vehicle.name)
