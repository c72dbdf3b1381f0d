"""All vehicles send packets again, late: what the server gets is repeated and out of order."""

import random
from typing import Literal

from pydantic import Field

from sim.chaos.faults import FaultConfig, Hit
from sim.chaos.stage import Stage


class Config(FaultConfig):
    kind: Literal["repeats"] = "repeats"
    share: float = Field(default=0.5, gt=0, le=1)
    """Of the packets."""

    def strike(self, stage: Stage, rng: random.Random) -> Hit:
        def order(share: float) -> None:
            for vehicle in stage.vehicles:
                vehicle.order(repeats=share)

        order(self.share)
        return Hit(lambda: order(0.0))
