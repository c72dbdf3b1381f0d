"""Fault of the broker: killed or stopped, then restarted with its stored messages or without."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Kill or stop the broker, and restart it at the repair."""

    kind: Literal["broker"] = "broker"
    forgets: bool = False
    """Whether the broker restarts without its stored messages; one that does not persist always does."""
    orderly: bool = False
    """Whether the broker gets SIGTERM instead of SIGKILL."""

    @property
    def name(self) -> str:
        return f"broker {'stopped' if self.orderly else 'killed'}{' and emptied' * self.forgets}"

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        if self.orderly:
            testbed.broker.stop()
        else:
            testbed.broker.kill()
        if self.forgets or not testbed.broker_persists:
            testbed.empty_broker()
        return ActiveFault(testbed.broker.start)
