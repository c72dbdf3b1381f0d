"""The whole server gone at once, and started again."""

import random
from typing import Literal

from sim.chaos.faults import FaultConfig, Hit
from sim.chaos.stage import Stage


class Config(FaultConfig):
    kind: Literal["server"] = "server"

    def strike(self, stage: Stage, rng: random.Random) -> Hit:
        stage.kill_server()
        return Hit(stage.start_server)
