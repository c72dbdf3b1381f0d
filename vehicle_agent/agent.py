"""One vehicle's loop: newest release in, local steps, update out. Knows no broker and no process.

Four tasks share the loop: releases move a vector that is always a whole version, training goes from
it into the outbox, delivery publishes the outbox, receipts empty it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fleetfl import closed_form, topics, wire
from fleetfl.chunks import split
from fleetfl.codecs import CodecConfig, CodecError
from fleetfl.identity import Signer
from fleetfl.messages import MAX_NOTE, SIGNATURE, UNDONE, AnyMessage, Receipt, Status, Update
from fleetfl.releases import Held
from fleetfl.tasks import together
from fleetfl.transport import Transport, TransportError
from fleetfl.vectors import Layout
from vehicle_agent.adoption import Adoption
from vehicle_agent.feedback import ErrorFeedback
from vehicle_agent.outbox import Outbox, Waiting
from vehicle_agent.sensors import Frames, SensorError, SensorSource
from vehicle_agent.trainer import LocalTraining, Summed

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
    fetch_s: float = Field(default=60.0, gt=0)
    """How long a missed release, or a snapshot, may take to come; then it is asked for again."""
    sums_of_frames: int = Field(default=0, ge=0)
    """Where version 0 is the newest, first send sums over the features of so many frames, for a head in
    closed form (`server.closed_form`). 0 sends none."""
    sums_wait_s: float = Field(default=30.0, ge=0)
    """After that, how long to wait for the head before training goes on without it."""


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
    signer: Signer | None = None
    """Signs what the vehicle says; without one a server that asks for signatures refuses it."""

    @property
    def update_topic(self) -> str:
        return topics.update(self.fleet, self.vehicle, self.num_partitions)

    @property
    def status_topic(self) -> str:
        return topics.status(self.fleet, self.vehicle, self.num_partitions)

    @property
    def key(self) -> bytes:
        """The public key, 32 bytes; empty if it signs nothing."""
        return b"" if self.signer is None else self.signer.public

    def offline(self) -> bytes:
        """The last will."""
        return self.frame(Status(self.vehicle, self.boot, "offline", -1, 0, 0, 0, "", self.key))

    def frame(self, message: AnyMessage) -> bytes:
        """The message as it goes out."""
        return wire.encode(message, self.signer)


class Agent:
    """Runs on any Transport, sensor and trainer.

    `work` runs a blocking call aside: in a thread, unless a simulation knows better. With
    `server_key` it believes only what its server has signed.
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
        error_feedback: float = 0.9,
        frames_per_update: int,
        outbox: Outbox,
        server_key: wire.Verifier | None = None,
        sums: Callable[[np.ndarray, Frames], Summed] | None = None,
        work: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self.config, self.identity = config, identity
        self.transport, self.sensor, self.trainer = transport, sensor, trainer
        self.layout, self.codec_kind = layout, codec.kind_name
        self.feedback = ErrorFeedback(codec.build(layout), layout.size, decay=error_feedback)
        left = outbox.residual(layout.fingerprint)
        if left is not None and left.shape == (layout.size,):
            self.feedback.residual = left
        self.residual_lock = asyncio.Lock()
        self.frames_per_update, self.outbox, self.work = frames_per_update, outbox, work
        self.server_key, self.sums = server_key, sums
        self.adoption = Adoption(
            identity.fleet,
            layout,
            transport=transport,
            server_key=server_key,
            fetch_s=config.fetch_s,
            retry_s=config.resend_s,
            tell=self._tell,
        )
        self.sequence = 0
        self.partly_sent: dict[tuple[str, int], int] = {}
        """Chunks the broker has, of an update that a broken link cut off."""
        self.bytes_up = 0
        self.note = ""
        self.outbox_changed = asyncio.Event()
        self.room = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Faults of link, server and sensor are noted, reported and waited out."""
        # First of all: a server that notes keys at their first use has to see ours.
        await self.report("online")
        await together(
            releases=self.adoption.run(),
            training=self._train(),
            delivery=self._deliver(),
            receipts=self._take_receipts(),
            status=self._report_often(),
        )

    async def _send_sums(self) -> None:
        """Once, and only of version 0: every vehicle's features have to be the same."""
        await self.adoption.came.wait()
        base = self.adoption.held
        assert base is not None
        if self.sums is None or not self.config.sums_of_frames or base.version > 0:
            return
        try:
            frames = await self.work(self.sensor.read, self.config.sums_of_frames)
        except SensorError as unfit:
            self._tell(f"no sums: {unfit}")
            return
        summed = await self.work(self.sums, base.vector, frames)
        update = Update(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            sequence=self.sequence,
            base_version=base.version,
            layout=self.layout.fingerprint,
            num_examples=summed.num_examples,
            local_steps=1,
            captured_from=int(frames.captured_from),
            captured_to=int(frames.captured_to),
            loss=summed.loss,
            codec=closed_form.KIND,
            body=summed.body,
        )
        self.outbox.put(update.boot, update.sequence, self.identity.frame(update))
        self.sequence += 1
        self.outbox_changed.set()
        log.info("sums of %d frames, %d bytes", summed.num_examples, len(summed.body))
        end = asyncio.get_running_loop().time() + self.config.sums_wait_s
        while self.adoption.held is base and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.2)

    async def _train(self) -> None:
        await self._send_sums()
        while True:
            await self.adoption.came.wait()
            while len(self.outbox) >= self.config.max_waiting:
                self.room.clear()
                await self.room.wait()
            try:
                frames = await self.work(self.sensor.read, self.frames_per_update)
                base = self.adoption.held
                assert base is not None
                seed = self.identity.seed * 1_000_003 + self.sequence
                trained = await self.work(self.trainer.train, base.vector, frames, seed=seed)
                await self._post(base, frames, trained)
            except (SensorError, CodecError) as unfit:
                self._tell(f"no update: {unfit}")
                await asyncio.sleep(self.config.resend_s)
            await asyncio.sleep(self.config.pause_s)

    async def _post(self, base: Held, frames: Frames, trained: LocalTraining) -> None:
        """Into the outbox. Raises CodecError if training diverged."""
        async with self.residual_lock:
            packed = await self.work(self.feedback.pack, trained.delta)
            update = self._update(base, frames, trained, packed.body)
            self.outbox.put(
                update.boot,
                update.sequence,
                self.identity.frame(update),
                layout=self.layout.fingerprint,
                residual=packed.residual,
            )
            self.feedback.residual = packed.residual
        self.sequence += 1
        self.outbox_changed.set()
        log.info("trained base=%d seq=%d loss=%.3f", base.version, update.sequence, trained.loss)

    def _update(self, base: Held, frames: Frames, trained: LocalTraining, body: bytes) -> Update:
        return Update(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            sequence=self.sequence,
            base_version=base.version,
            layout=self.layout.fingerprint,
            num_examples=trained.num_examples,
            local_steps=trained.local_steps,
            captured_from=int(frames.captured_from),
            captured_to=int(frames.captured_to),
            loss=trained.loss,
            codec=self.codec_kind,
            body=body,
        )

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
                    await self._send(item)
                except TransportError as broken:
                    self._tell(str(broken))
                    break
                tries[name] = tries.get(name, 0) + 1
                due[name] = loop.time() + self.config.resend_s * 2 ** min(tries[name] - 1, 6)
            timeout_s = min(due.values(), default=loop.time() + 60.0) - loop.time()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.outbox_changed.wait(), max(timeout_s, 0.1))

    async def _send(self, item: Waiting) -> None:
        """Publish it, in chunks if need be, from where the link broke the last time.

        Raises TransportError.
        """
        payloads = split(item.frame, self.transport.max_payload_bytes)
        name = (item.boot, item.sequence)
        num_sent = self.partly_sent.pop(name, 0)
        for number, payload in enumerate(payloads[num_sent:], start=num_sent):
            self.partly_sent[name] = number
            await self.transport.publish(self.identity.update_topic, payload)
            self.bytes_up += len(payload)
        del self.partly_sent[name]

    async def _take_receipts(self) -> None:
        topic = topics.receipt(self.identity.fleet, self.identity.vehicle)
        async with self.transport.subscribe(topic) as packets:
            async for packet in packets:
                packet.ack()
                try:
                    receipt = wire.decode(packet.payload, self.server_key)
                except wire.WireError as noise:
                    log.warning("receipt dropped: %s", noise)
                    continue
                if not isinstance(receipt, Receipt):
                    continue
                if receipt.reason == SIGNATURE:
                    self._tell("the server does not know our signature: see its log")
                    continue
                if await self._forget(receipt):
                    log.info(
                        "%s seq=%d staleness=%d %s",
                        receipt.verdict,
                        receipt.sequence,
                        receipt.staleness,
                        receipt.reason,
                    )
                self.room.set()
                self.outbox_changed.set()

    async def _forget(self, receipt: Receipt) -> bool:
        """False if it was forgotten before. What a refused one held goes back into the residual."""
        boot, sequence = receipt.boot, receipt.sequence
        if receipt.verdict != "refused":
            return self.outbox.forget(boot, sequence)
        async with self.residual_lock:
            frame = self.outbox.frame(boot, sequence)
            if frame is None:
                return False
            if receipt.reason == UNDONE:  # what is left of such training would lead there again
                residual = np.zeros_like(self.feedback.residual)
            else:
                residual = self._with_returned(frame)
            self.outbox.forget(boot, sequence, layout=self.layout.fingerprint, residual=residual)
            self.feedback.residual = residual
        return True

    def _with_returned(self, frame: bytes) -> np.ndarray:
        """The residual if this frame of ours is never counted."""
        update = wire.decode(frame)
        assert isinstance(update, Update), "the outbox holds nothing else"
        # Packed for another model, or by another codec before a change of settings, it cannot return.
        if (update.layout, update.codec) != (self.layout.fingerprint, self.codec_kind):
            return self.feedback.residual
        return self.feedback.returned(update.body)

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(self.config.status_s)
            await self.report("online")

    async def report(self, state: Literal["online", "offline"], *, timeout_s: float = 30.0) -> None:
        """Publish the vehicle's status, retained; a link that is down is only logged."""
        frame = self.identity.frame(self.status(state))
        topic = self.identity.status_topic
        try:
            await self.transport.publish(topic, frame, retain=True, timeout_s=timeout_s)
        except TransportError as broken:
            log.warning("status not sent: %s", broken)

    def status(self, state: Literal["online", "offline"] = "online") -> Status:
        held = self.adoption.held
        return Status(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            state=state,
            version=-1 if held is None else held.version,
            bytes_up=self.bytes_up,
            bytes_down=self.adoption.num_bytes,
            waiting=len(self.outbox),
            note=self.note[:MAX_NOTE],
            key=self.identity.key,
        )

    def _tell(self, note: str) -> None:
        """What hinders; empty if nothing does."""
        self.note = note
        if note:
            log.warning("%s", note)
