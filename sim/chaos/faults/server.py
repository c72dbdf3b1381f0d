"""Fault of the server: killed with all its processes or alone, then started again."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Kill the server, and start it at the repair."""

    kind: Literal["server"] = "server"
    alone: bool = False
    """Whether only the main process is killed, as when memory runs out; the processes it started stay."""

    @property
    def name(self) -> str:
        return "server alone" if self.alone else "server"

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        if self.alone:
            testbed.kill_server_alone()
        else:
            testbed.kill_server()
        return ActiveFault(testbed.start_server)
