"""SIGKILL to a part of the server that Ray builds again."""

import random
from typing import Literal

from sim.chaos.faults import FaultConfig, Hit
from sim.chaos.stage import Stage


class Config(FaultConfig):
    kind: Literal["kill"] = "kill"
    who: Literal["gateway", "aggregator"]
    for_s: tuple[float, float] = (0.0, 0.0)

    @property
    def name(self) -> str:
        return f"kill {self.who}"

    @property
    def victim(self) -> str:
        return self.who

    def strike(self, stage: Stage, rng: random.Random) -> Hit:
        stage.kill_actor(self.who)
        return Hit()
