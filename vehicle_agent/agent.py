"""One vehicle's loop: newest release in, local steps, update out. Knows no broker and no process.

Four tasks share the loop: releases fill a cell that keeps only the newest, training empties it into
the outbox, delivery publishes the outbox, receipts empty it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fleetfl import topics, wire
from fleetfl.codecs import CodecConfig, CodecError, decoder
from fleetfl.messages import Receipt, Release, Status, Update
from fleetfl.tasks import together
from fleetfl.transport import Transport, TransportError
from fleetfl.vectors import Layout, digest
from vehicle_agent.outbox import Outbox
from vehicle_agent.sensors import Frames, SensorError, SensorSource
from vehicle_agent.trainer import LocalTraining

log = logging.getLogger(__name__)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pause_s: float = Field(default=0.0, ge=0)
    """Rest between two trainings."""
    resend_s: float = Field(default=10.0, gt=0)
    """An update without a receipt is published again after this; the wait doubles each time."""
    max_waiting: int = Field(default=8, ge=1)
    """Training rests while so many updates wait for receipts."""
    status_s: float = Field(default=10.0, gt=0)
    """Between two status messages."""


class Training(Protocol):
    """What the agent needs of a trainer."""

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining: ...


@dataclass(frozen=True)
class Identity:
    fleet: str
    vehicle: str
    boot: str
    num_partitions: int = 1
    seed: int = 0

    @property
    def update_topic(self) -> str:
        return topics.update(self.fleet, self.vehicle, self.num_partitions)

    @property
    def status_topic(self) -> str:
        return topics.status(self.fleet, self.vehicle, self.num_partitions)

    def offline(self) -> bytes:
        """The last will."""
        return wire.encode(Status(self.vehicle, self.boot, "offline", -1, 0, 0, 0, ""))


@dataclass(frozen=True)
class Base:
    """A release this vehicle can train from."""

    version: int
    params: np.ndarray


class Agent:
    """Runs on any Transport, sensor and trainer.

    `work` runs a blocking call aside: in a thread, unless a simulation knows better.
    """

    def __init__(
        self,
        config: Config,
        identity: Identity,
        *,
        transport: Transport,
        sensor: SensorSource,
        trainer: Training,
        layout: Layout,
        codec: CodecConfig,
        frames_per_update: int,
        outbox: Outbox,
        work: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self.config, self.identity = config, identity
        self.transport, self.sensor, self.trainer = transport, sensor, trainer
        self.layout, self.codec, self.codec_kind = layout, codec.build(layout), codec.kind_name
        self.frames_per_update, self.outbox, self.work = frames_per_update, outbox, work
        self.newest: Base | None = None
        self.sequence = 0
        self.bytes_up = self.bytes_down = 0
        self.note = ""
        self.release_came = asyncio.Event()
        self.outbox_changed = asyncio.Event()
        self.room = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Faults of link, server and sensor are noted, reported and waited out."""
        await together(
            releases=self._take_releases(),
            training=self._train(),
            delivery=self._deliver(),
            receipts=self._take_receipts(),
            status=self._report_often(),
        )

    async def _take_releases(self) -> None:
        topic = topics.release(self.identity.fleet)
        async with self.transport.subscribe(topic) as packets:
            async for packet in packets:
                packet.ack()
                self.bytes_down += len(packet.payload)
                try:
                    self.newest = self._base(packet.payload)
                except (wire.WireError, CodecError) as unfit:
                    self._hindered(f"release dropped: {unfit}")
                    continue
                self.note = ""
                self.release_came.set()

    def _base(self, frame: bytes) -> Base:
        """Raises WireError or CodecError if it is not a release of this vehicle's model."""
        release = wire.decode(frame)
        if not isinstance(release, Release):
            raise wire.WireError(f"a {type(release).__name__}, expected a Release")
        if release.layout != self.layout.fingerprint:
            raise wire.WireError(
                f"layout {release.layout} where this vehicle's model has "
                f"{self.layout.fingerprint}: their `model` settings differ"
            )
        params = decoder(release.codec, self.layout).decode(release.body)
        if digest(params) != release.sha256:
            raise wire.WireError(f"version {release.version}: SHA-256 does not match")
        return Base(release.version, params)

    async def _train(self) -> None:
        while True:
            await self.release_came.wait()
            while len(self.outbox) >= self.config.max_waiting:
                self.room.clear()
                await self.room.wait()
            base = self.newest
            assert base is not None
            try:
                frames = await self.work(self.sensor.read, self.frames_per_update)
                seed = self.identity.seed * 1_000_003 + self.sequence
                trained = await self.work(self.trainer.train, base.params, frames, seed=seed)
                self._post(base, frames, trained)
            except (SensorError, CodecError) as unfit:
                self._hindered(f"no update: {unfit}")
                await asyncio.sleep(self.config.resend_s)
            await asyncio.sleep(self.config.pause_s)

    def _post(self, base: Base, frames: Frames, trained: LocalTraining) -> None:
        """Into the outbox. Raises CodecError if training diverged."""
        update = Update(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            sequence=self.sequence,
            base_version=base.version,
            layout=self.layout.fingerprint,
            num_examples=trained.num_examples,
            local_steps=trained.local_steps,
            captured_from=frames.captured_from,
            captured_to=frames.captured_to,
            loss=trained.loss,
            codec=self.codec_kind,
            body=self.codec.encode(trained.delta),
        )
        self.outbox.put(update.boot, update.sequence, wire.encode(update))
        self.sequence += 1
        self.outbox_changed.set()
        log.info("trained base=%d seq=%d loss=%.3f", base.version, update.sequence, trained.loss)

    async def _deliver(self) -> None:
        """Publish what waits; again, less and less often, what has no receipt yet."""
        loop = asyncio.get_running_loop()
        due: dict[tuple[str, int], float] = {}
        tries: dict[tuple[str, int], int] = {}
        while True:
            self.outbox_changed.clear()
            waiting = self.outbox.waiting()
            names = {(w.boot, w.sequence) for w in waiting}
            due = {name: at for name, at in due.items() if name in names}
            tries = {name: n for name, n in tries.items() if name in names}
            for item in waiting:
                name = (item.boot, item.sequence)
                if due.get(name, 0.0) > loop.time():
                    continue
                try:
                    await self.transport.publish(self.identity.update_topic, item.frame)
                except TransportError as broken:
                    self._hindered(str(broken))
                    break
                self.bytes_up += len(item.frame)
                tries[name] = tries.get(name, 0) + 1
                due[name] = loop.time() + self.config.resend_s * 2 ** min(tries[name] - 1, 6)
            timeout_s = min(due.values(), default=loop.time() + 60.0) - loop.time()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.outbox_changed.wait(), max(timeout_s, 0.1))

    async def _take_receipts(self) -> None:
        topic = topics.receipt(self.identity.fleet, self.identity.vehicle)
        async with self.transport.subscribe(topic) as packets:
            async for packet in packets:
                packet.ack()
                try:
                    receipt = wire.decode(packet.payload)
                except wire.WireError as noise:
                    log.warning("receipt dropped: %s", noise)
                    continue
                if not isinstance(receipt, Receipt):
                    continue
                if self.outbox.forget(receipt.boot, receipt.sequence):
                    log.info(
                        "%s seq=%d staleness=%d %s",
                        receipt.verdict,
                        receipt.sequence,
                        receipt.staleness,
                        receipt.reason,
                    )
                self.room.set()
                self.outbox_changed.set()

    async def _report_often(self) -> None:
        while True:
            await self.report("online")
            await asyncio.sleep(self.config.status_s)

    async def report(self, state: Literal["online", "offline"], *, timeout_s: float = 30.0) -> None:
        """Publish the vehicle's status, retained; a link that is down is only logged."""
        frame = wire.encode(self.status(state))
        topic = self.identity.status_topic
        try:
            await self.transport.publish(topic, frame, retain=True, timeout_s=timeout_s)
        except TransportError as broken:
            log.warning("status not sent: %s", broken)

    def status(self, state: Literal["online", "offline"] = "online") -> Status:
        return Status(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            state=state,
            version=-1 if self.newest is None else self.newest.version,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            waiting=len(self.outbox),
            note=self.note,
        )

    def _hindered(self, note: str) -> None:
        self.note = note
        log.warning("%s", note)
