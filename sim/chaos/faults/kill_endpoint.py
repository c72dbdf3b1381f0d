"""SIGKILL to what only a server with an endpoint has: evaluator, replica, proxy."""

import random
from typing import ClassVar, Literal

from sim.chaos.faults import FaultConfig, Hit
from sim.chaos.stage import Stage


class Config(FaultConfig):
    kind: Literal["kill_endpoint"] = "kill_endpoint"
    who: Literal["evaluator", "replica", "proxy"]
    for_s: tuple[float, float] = (0.0, 0.0)

    needs_endpoint: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"kill {self.who}"

    @property
    def victim(self) -> str:
        return self.who

    def strike(self, stage: Stage, rng: random.Random) -> Hit:
        stage.kill_endpoint(self.who)
        return Hit()
