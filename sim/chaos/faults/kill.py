"""SIGKILL to one part of the server, which is built again by itself."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import ENDPOINT_PARTS, Testbed


class Config(FaultConfig):
    kind: Literal["kill"] = "kill"
    who: Literal["gateway", "aggregator", "evaluator", "replica", "proxy"]
    """The part of the server that gets SIGKILL."""
    for_s: tuple[float, float] = (0.0, 0.0)
    """Fewest and most seconds that the fault lasts; a kill is over at once."""

    @property
    def needs_endpoint(self) -> bool:
        return self.who in ENDPOINT_PARTS

    @property
    def name(self) -> str:
        return f"kill {self.who}"

    @property
    def victim(self) -> str:
        return self.who

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        stage.kill(self.who)
        return ActiveFault()
