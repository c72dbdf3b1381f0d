"""Broker settings of a chaos run: the program, and whether its messages survive a restart."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from fleetfl.config import Section
from sim.processes import brokers
from sim.processes.brokers import Broker


class BrokerConfig(Section):
    """One broker that chaos runs use."""

    kind: Literal["nats", "mosquitto"]
    """Broker program: NATS with JetStream, or Mosquitto."""
    persists: bool = True
    """Whether the broker's sessions and messages survive a restart."""

    @property
    def name(self) -> str:
        return self.kind if self.persists else f"{self.kind} without persistence"

    def start(self, store: Path) -> AbstractContextManager[Broker]:
        """Context with the broker running on the folder `store`. Raises BrokerError."""
        if self.kind == "nats":
            return brokers.nats_server(store, redeliver_after_s=2)
        return brokers.mosquitto(store, extra_config="" if self.persists else "persistence false")


def empty(store: Path) -> None:
    """Delete the sessions and messages that a stopped broker has on disk."""
    shutil.rmtree(store / "jetstream", ignore_errors=True)
    (store / "mosquitto.db").unlink(missing_ok=True)
