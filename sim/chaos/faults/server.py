"""The server gone at once, with all its processes or alone, and started again."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import Testbed


class Config(FaultConfig):
    kind: Literal["server"] = "server"
    alone: bool = False
    """Only the process that a person started, as when memory runs out; the others are on their own."""

    @property
    def name(self) -> str:
        return "server alone" if self.alone else "server"

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        if self.alone:
            stage.kill_server_alone()
        else:
            stage.kill_server()
        return ActiveFault(stage.start_server)
