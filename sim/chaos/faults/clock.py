"""A vehicle's clock jumps, and back again."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import Testbed


class Config(FaultConfig):
    kind: Literal["clock"] = "clock"
    by_s: float = 86_400.0
    """Forward, or back if negative."""

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        vehicle = rng.choice(stage.vehicles)
        vehicle.order(clock_s=self.by_s)
        return ActiveFault(lambda: vehicle.order(clock_s=0.0), vehicle.name)
