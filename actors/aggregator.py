"""The single owner of the model: serializes updates onto one Coordinator, hands out what it releases."""

import asyncio
import secrets

from actors.config import ServerConfig
from fleetfl.adapter_file import read_adapter
from fleetfl.coordinator import Coordinator, Outcome
from fleetfl.messages import Release, Snapshot, Update
from fleetfl.telemetry import EventLog


class Aggregator:
    """Plain class: `cluster.py` makes it remote. Built from settings, inside the actor."""

    def __init__(self, config: ServerConfig) -> None:
        assert config.initial is not None, "cluster.py writes one where the settings name none"
        layout, params = read_adapter(config.initial)
        self.coordinator = Coordinator(
            params,
            layout,
            config.aggregator.build(layout.size),
            config.optimizer.build(layout.size),
            release_codec=config.release,
            lineage=secrets.token_hex(4),
            max_staleness=config.max_staleness,
        )
        self.events = EventLog(config.state / "events.jsonl")
        self.changed = asyncio.Condition()
        self.snapshot = self._released()

    async def submit(self, update: Update, frame_bytes: int) -> Outcome:
        """Judge one update; `frame_bytes` is its size on the wire."""
        outcome = self.coordinator.submit(update)
        seen = {
            "vehicle": update.vehicle,
            "boot": update.boot,
            "sequence": update.sequence,
            "base": update.base_version,
            "staleness": outcome.staleness,
            "bytes": frame_bytes,
        }
        if outcome.reason is not None:
            self.events.write("refused", **seen, reason=outcome.reason.value, detail=outcome.detail)
        else:
            self.events.write(
                outcome.verdict, **seen, loss=update.loss, num_examples=update.num_examples
            )
        if outcome.released:
            self.snapshot = self._released()
            async with self.changed:
                self.changed.notify_all()
        return outcome

    async def newer(self, than: int) -> Snapshot:
        """The newest version, once there is one past `than` (-1 for any)."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.snapshot.version > than)
        return self.snapshot

    async def announcement(self, than: int) -> tuple[Snapshot, list[Release]]:
        """As `newer`, with the releases past `than` that vehicles may ask for, newest last."""
        snapshot = await self.newer(than)
        return snapshot, self.coordinator.published.since(than)

    async def ping(self) -> int:
        """The newest version: the actor is up."""
        return self.coordinator.version

    def _released(self) -> Snapshot:
        snapshot = self.coordinator.published.whole()
        self.events.write("released", version=snapshot.version, sha256=snapshot.sha256.hex())
        return snapshot
