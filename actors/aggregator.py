"""The single owner of the model: serializes updates onto one Coordinator, hands out the newest release."""

import asyncio

from actors.config import ServerConfig
from fleetfl.adapter_file import read_adapter
from fleetfl.codecs import decoder
from fleetfl.coordinator import Coordinator, Outcome
from fleetfl.messages import Release, Update
from fleetfl.telemetry import EventLog
from fleetfl.vectors import digest

RELEASE_CODEC = "float32"


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
            max_staleness=config.max_staleness,
        )
        self.codec = decoder(RELEASE_CODEC, layout)
        self.events = EventLog(config.state / "events.jsonl")
        self.changed = asyncio.Condition()
        self.release = self._new_release()

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
            self.release = self._new_release()
            async with self.changed:
                self.changed.notify_all()
        return outcome

    async def newer(self, than: int) -> Release:
        """The newest release, once there is one past version `than` (-1 for any)."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.release.version > than)
        return self.release

    async def ping(self) -> int:
        """The newest version: the actor is up."""
        return self.release.version

    def _new_release(self) -> Release:
        params = self.coordinator.params
        release = Release(
            version=self.coordinator.version,
            layout=self.coordinator.layout.fingerprint,
            codec=RELEASE_CODEC,
            sha256=digest(params),
            body=self.codec.encode(params),
        )
        self.events.write("released", version=release.version, sha256=release.sha256)
        return release
