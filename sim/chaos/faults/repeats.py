"""All vehicles send packets again, late: what the server gets is repeated and out of order."""

import random
from typing import Literal

from pydantic import Field

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import Testbed


class Config(FaultConfig):
    kind: Literal["repeats"] = "repeats"
    share: float = Field(default=0.5, gt=0, le=1)
    """Of the packets."""

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        def order(share: float) -> None:
            for vehicle in stage.vehicles:
                vehicle.order(repeats=share)

        order(self.share)
        return ActiveFault(lambda: order(0.0))
