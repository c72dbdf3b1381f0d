"""The broker killed or stopped, and started again: with what it had on disk, or with nothing."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import Testbed


class Config(FaultConfig):
    kind: Literal["broker"] = "broker"
    forgets: bool = False
    """It comes back on an empty disk. One that does not persist forgets anyway."""
    orderly: bool = False
    """SIGTERM instead of SIGKILL."""

    @property
    def name(self) -> str:
        return f"broker {'stopped' if self.orderly else 'killed'}{' and emptied' * self.forgets}"

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        if self.orderly:
            stage.broker.stop()
        else:
            stage.broker.kill()
        if self.forgets or not stage.broker_persists:
            stage.empty_broker()
        return ActiveFault(stage.broker.start)
