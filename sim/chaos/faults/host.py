"""The server's host lost for good, with its state, and its newest backup put back on another one."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.stage import Testbed


class Config(FaultConfig):
    kind: Literal["host"] = "host"
    for_s: tuple[float, float] = (0.5, 4.0)
    """Shortest and longest time from the backup until the host is lost, seconds."""
    with_broker: bool = False
    """The broker was on that host too: what it had is gone, and it is there again empty."""

    @property
    def name(self) -> str:
        return f"host lost{' with its broker' * self.with_broker}"

    @property
    def victim(self) -> str:
        return "server"

    def inject(self, stage: Testbed, rng: random.Random) -> ActiveFault:
        stage.back_up()

        def lose() -> None:
            stage.lose_host()
            if self.with_broker:
                stage.broker.kill()
                stage.empty_broker()
                stage.broker.start()
            stage.start_server()

        return ActiveFault(lose)
