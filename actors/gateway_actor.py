"""The gateway as a Ray actor, and the calls by which actors reach the aggregator.

Imports neither torch nor the aggregator, so that a killed gateway restarts sooner.
"""

import functools
import math
import os
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric

from actors.call_coalescer import CallCoalescer
from actors.config import ServerConfig
from actors.gateway import Gateway
from actors.monitoring.metrics import Metrics
from actors.roster import VehicleDirectory, VehicleStatus
from fleetfl.coordination.coordinator import Outcome
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import topics
from fleetfl.protocol.messages import Release, Snapshot
from fleetfl.protocol.signing import Signer
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.releases.frame_bounds import max_frame_bytes
from fleetfl.releases.generations import Order
from fleetfl.storage import client_ids
from fleetfl.storage.journal import Journal, JournalError

NAMESPACE = "fleetfl"
"""Ray namespace in which the server's actors are named."""


@dataclass(frozen=True)
class Calls:
    """The aggregator's methods as coroutines; crosses Ray by the actor's name.

    All may be asked twice, so while the actor is away Ray holds them back, and asks again what it lost.
    """

    name: str

    @functools.cached_property
    def aggregator(self) -> Any:
        """The aggregator's handle, looked up where it is used.

        A handle among an actor's arguments would lie in the object store, and without the node of that
        store the actor could not be built again.
        """
        import ray

        return ray.get_actor(self.name, namespace=NAMESPACE)

    async def outcomes_of(self, rows: list[int]) -> list[Outcome | Exception]:
        return await self.aggregator.outcomes_of.remote(rows)

    async def repair_journal(self) -> None:
        await self.aggregator.repair_journal.remote()

    async def wait_for_version(self, than: Order) -> Snapshot:
        return await self.aggregator.wait_for_version.remote(than)

    async def announcement(self, than: Order) -> tuple[Snapshot, list[Release]]:
        return await self.aggregator.announcement.remote(than)


class GatewayActor:
    """Runs a Gateway with its own broker session, which repeats every packet that was not acknowledged."""

    def __init__(self, config: ServerConfig, partition: int, calls: Calls) -> None:
        """Raises IdentityError for keys that cannot be used, AdapterFileError for the initial adapter."""
        self.config, self.partition, self.calls = config, partition, calls
        assert config.initial is not None, "cluster.py writes one where the settings name none"
        self.max_frame_bytes = max_frame_bytes(read_adapter(config.initial)[0])
        self.keys = config.keys.build(config.fleet, config.state)
        self.signer = Signer.from_file(config.fleet, config.state / "key.pem")
        self.metrics = Metrics()
        self.journal = Journal(config.journal_path, committed=self.metrics.committed)
        self.events = EventLog(
            config.state / "events.jsonl", bounds=config.events, watch=self.metrics.heard
        )
        self.roster = VehicleDirectory()

    async def ping(self) -> None:
        """The actor is up."""

    async def measured(self) -> list[Metric]:
        """The gateway's metrics at this moment, in Prometheus' types."""
        return self.metrics.collected()

    async def sightings(self) -> dict[str, VehicleStatus]:
        """Status of the partition's vehicles, with refused and never heard ones, by name."""
        listed = [] if self.keys is None else self.keys.names()
        count = self.config.num_partitions
        mine = (name for name in listed if topics.partition(name, count) == self.partition)
        return self.roster.shown(mine)

    def client_id(self) -> str:
        """The MQTT client id, equal at every start so that the broker queues packets. Raises JournalError."""
        try:
            server = client_ids.server_of(self.config.state)
        except OSError as failed:
            raise JournalError(f"{self.config.state}: {failed.strerror}") from failed
        return client_ids.gateway(self.config.fleet, self.partition, server)

    async def run(self) -> None:
        """Serve the partition until killed. Raises TransportError for a silent broker at the first start."""
        import ray

        client_id = self.client_id()
        is_restart = ray.get_runtime_context().was_current_actor_reconstructed
        self.events.write("gateway_started", pid=os.getpid(), partition=self.partition)
        async with self.config.transport.connect(
            client_id, clean_session=False, patience_s=math.inf if is_restart else 10.0
        ) as transport:
            gateway = Gateway(
                self.config.fleet,
                self.partition,
                transport=transport,
                journal=self.journal,
                # A call each would cost as much as all else that is done for an update.
                outcome=CallCoalescer(self.calls.outcomes_of).answer,
                announcement=self.calls.announcement,
                repair=self.calls.repair_journal,
                events=self.events,
                keys=self.keys,
                signer=self.signer,
                max_in_flight=self.config.max_in_flight,
                max_in_flight_bytes=self.config.max_in_flight_bytes,
                max_frame_bytes=self.max_frame_bytes,
                limits=self.config.limits,
            )
            gateway.measured_by(self.metrics)
            self.roster = gateway.roster
            await gateway.run()
