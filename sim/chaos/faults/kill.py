"""Fault of one part of the server: SIGKILL, after which Ray restarts it."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import ENDPOINT_PARTS, Testbed


class Config(FaultConfig):
    """Kill one actor, or one part of the endpoint."""

    kind: Literal["kill"] = "kill"
    who: Literal["gateway", "aggregator", "evaluator", "replica", "proxy"]
    """Part of the server that gets SIGKILL."""
    for_s: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest duration in seconds; a kill is over at once."""

    @property
    def needs_endpoint(self) -> bool:
        return self.who in ENDPOINT_PARTS

    @property
    def name(self) -> str:
        return f"kill {self.who}"

    @property
    def victim(self) -> str:
        return self.who

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        testbed.kill(self.who)
        return ActiveFault()
