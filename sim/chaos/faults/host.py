"""Fault of the server's host: lost with its state, and replaced from its newest backup."""

import random
from typing import Literal

from sim.chaos.faults import ActiveFault, FaultConfig
from sim.chaos.testbed import Testbed


class Config(FaultConfig):
    """Back up the server, then lose its host and restore the backup elsewhere."""

    kind: Literal["host"] = "host"
    for_s: tuple[float, float] = (0.5, 4.0)
    """Shortest and longest time from the backup until the host is lost, in seconds."""
    with_broker: bool = False
    """Whether the broker is lost with the host and restarts without its messages."""

    @property
    def name(self) -> str:
        return f"host lost{' with its broker' * self.with_broker}"

    @property
    def victim(self) -> str:
        return "server"

    def inject(self, testbed: Testbed, rng: random.Random) -> ActiveFault:
        testbed.back_up()

        def lose() -> None:
            testbed.lose_host()
            if self.with_broker:
                testbed.broker.kill()
                testbed.empty_broker()
                testbed.broker.start()
            testbed.start_server()

        return ActiveFault(lose)
