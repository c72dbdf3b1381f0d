"""Fault of a vehicle's clock: it jumps, and jumps back at the repair."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Shift the clock of one vehicle."""

    kind: Literal["clock"] = "clock"
    by_s: float = 86_400.0
    """Shift of the clock in seconds; negative is backward."""

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        vehicle = rng.choice(testbed.vehicles)
        vehicle.order(clock_s=self.by_s)
        return ActiveFault(lambda: vehicle.order(clock_s=0.0), vehicle.name)
