"""Fault of packet delivery: vehicles send packets twice, so that the server gets them out of order."""

import random
from typing import Literal

from pydantic import Field

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Make all vehicles repeat some of their packets after a delay."""

    kind: Literal["repeats"] = "repeats"
    share: float = Field(default=0.5, gt=0, le=1)
    """Fraction of the packets that are repeated."""

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        def order(share: float) -> None:
            for vehicle in testbed.vehicles:
                vehicle.order(repeats=share)

        order(self.share)
        return ActiveFault(lambda: order(0.0))
