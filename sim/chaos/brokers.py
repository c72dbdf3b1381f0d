"""Which broker a run has, and whether what it had is there again when it comes back."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from fleetfl.config import Section
from sim.processes import brokers
from sim.processes.brokers import Broker


class BrokerConfig(Section):
    kind: Literal["nats", "mosquitto"]
    """Which broker is started."""
    persists: bool = True
    """What it had is there again after a restart."""

    @property
    def name(self) -> str:
        return self.kind if self.persists else f"{self.kind} without persistence"

    def start(self, store: Path) -> AbstractContextManager[Broker]:
        """Raises BrokerError."""
        if self.kind == "nats":
            return brokers.nats_server(store, redeliver_after_s=2)
        return brokers.mosquitto(store, extra_config="" if self.persists else "persistence false")


def empty(store: Path) -> None:
    """What a broker has on disk; it does not run."""
    shutil.rmtree(store / "jetstream", ignore_errors=True)
    (store / "mosquitto.db").unlink(missing_ok=True)
