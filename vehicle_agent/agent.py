"""One vehicle's loop: newest release in, local steps, update out. Knows no broker and no process.

Four tasks share the loop: adoption moves a vector that is always a whole version, training goes from
it into the outbox, delivery empties that, and now and then the vehicle says how it is.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from fleetfl import FleetflError, closed_form
from fleetfl.codecs import CodecConfig
from fleetfl.config import Section
from fleetfl.protocol import topics, wire
from fleetfl.protocol.log_keys import log_keys
from fleetfl.protocol.messages import MAX_NOTE, AnyMessage, Status, Update, fitting
from fleetfl.protocol.signing import Signer
from fleetfl.releases.versions import BASE_DIGEST_BYTES, CurrentRelease, Follower
from fleetfl.task_group import together
from fleetfl.transport import Transport, TransportError
from fleetfl.vectors import Layout
from vehicle_agent import sendable
from vehicle_agent.delivery import Delivery
from vehicle_agent.outbox import Memory, Outbox, OutboxError
from vehicle_agent.ports import SensorPort, TrainerPort, Work, said
from vehicle_agent.release_follower import ReleaseFollower
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining
from vehicle_agent.update_queue import UpdateQueue

log = logging.getLogger(__name__)


class Config(Section):
    pause_s: float = Field(default=0.0, ge=0)
    """Rest between two trainings."""
    resend_s: float = Field(default=10.0, gt=0)
    """An update without a receipt is published again after this; the wait doubles each time."""
    max_waiting: int = Field(default=8, ge=1)
    """Training rests while so many updates wait for receipts."""
    status_s: float = Field(default=10.0, gt=0)
    """Between two status messages."""
    fetch_s: float = Field(default=60.0, gt=0)
    """Seconds that a missed release or a snapshot may take to come before it is asked for again."""
    sums_of_frames: int = Field(default=0, ge=0)
    """Where version 0 is the newest, first send sums over the features of so many frames, for a head in
    closed form (`server.closed_form`). 0 sends none."""
    sums_wait_s: float = Field(default=30.0, ge=0)
    """After that, how long to wait for the head before training goes on without it."""


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
    def proof_topic(self) -> str:
        return topics.proof(self.fleet, self.vehicle, self.num_partitions)

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

    `work` packs updates aside: in a thread, unless a simulation knows better. With `server_key` the agent
    believes only what its server has signed. A `follower` is taken as it stands; without one the agent goes
    on from the version that its outbox holds.
    """

    def __init__(
        self,
        config: Config,
        identity: Identity,
        *,
        transport: Transport,
        sensor: SensorPort,
        trainer: TrainerPort,
        layout: Layout,
        codec: CodecConfig,
        error_feedback: float = 0.9,
        frames_per_update: int,
        outbox: Outbox,
        server_key: wire.Verifier | None = None,
        follower: Follower | None = None,
        work: Work = asyncio.to_thread,
    ) -> None:
        self.config, self.identity = config, identity
        self.transport, self.sensor, self.trainer = transport, sensor, trainer
        self.layout, self.outbox = layout, outbox
        self.frames_per_update = frames_per_update
        self.adoption = ReleaseFollower(
            identity.fleet,
            layout,
            held=outbox.held(layout),
            follower=follower or Follower(layout, floor=outbox.floor()),
            transport=transport,
            server_key=server_key,
            fetch_s=config.fetch_s,
            retry_s=config.resend_s,
            tell=functools.partial(self._tell, "release"),
            proof_topic=identity.proof_topic,
        )
        self.books = UpdateQueue(
            outbox,
            codec,
            layout,
            vehicle=identity.vehicle,
            decay=error_feedback,
            sign=identity.frame,
            work=work,
        )
        self.delivery = Delivery(
            self.books,
            vehicle=identity.vehicle,
            transport=transport,
            update_topic=identity.update_topic,
            receipt_topic=topics.receipt(identity.fleet, identity.vehicle),
            server_key=server_key,
            resend_s=config.resend_s,
            newest=self.adoption.newest,
            tell=functools.partial(self._tell, "delivery"),
            seed=f"{identity.vehicle} {identity.boot}",
        )
        self.memory = outbox.memory()
        self.classes = layout.means("classes")
        self.sequence = 0
        self.notes: dict[str, str] = {}
        """What hinders, by whom; without an entry nothing does."""

    async def run(self) -> None:
        """Until cancelled. Faults of link, server and sensor are noted, reported and waited out."""
        # First of all: a server that notes keys at their first use has to see ours.
        await self.report("online")
        await together(
            releases=self.adoption.run(),
            training=self._train(),
            delivery=self.delivery.run(),
            status=self._report_often(),
        )

    async def _send_sums(self) -> None:
        """Once, and only of version 0: every vehicle's features have to be the same."""
        await self.adoption.came.wait()
        base = self.adoption.held
        assert base is not None
        if not self.config.sums_of_frames or base.version > 0:
            return
        try:
            frames = await self._frames(self.config.sums_of_frames)
            summed = await self.trainer.sums(base.vector, frames)
        except Exception as unfit:  # training needs no sums
            self._tell("sums", f"no sums: {said(unfit)}")
            return
        if summed is None:
            return
        update = self._update(
            base,
            frames,
            num_examples=summed.num_examples,
            local_steps=1,
            loss=summed.loss,
            codec=closed_form.KIND,
            body=summed.body,
        )
        memory = self._remembered(frames)
        try:
            await self._once_there_is_room(lambda: self.books.keep_as_is(update, memory, base))
        except wire.UnsendableError as unfit:
            self._tell("sums", f"no sums: {unfit}")
            return
        self._kept(memory)
        num_bytes = len(summed.body)
        log.info(
            "sums of %d frames, %d bytes, %s", summed.num_examples, num_bytes, log_keys(update)
        )
        end = asyncio.get_running_loop().time() + self.config.sums_wait_s
        while self.adoption.held is base and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.2)

    async def _train(self) -> None:
        tell = functools.partial(self._tell, "training")
        await self._send_sums()
        while True:
            await self.adoption.came.wait()
            while len(self.outbox) >= self.config.max_waiting:
                self.books.went.clear()
                await self.books.went.wait()
            try:
                frames = await self._frames(self.frames_per_update)
                base = self.adoption.held
                assert base is not None
                seed = self.identity.seed * 1_000_003 + self.memory.num_trained
                trained = await self.trainer.train(base.vector, frames, seed=seed)
                await self._keep(base, frames, trained)
                tell("")
            except Exception as unfit:  # the loop must live: the next frames may be good ones
                if not isinstance(unfit, FleetflError):
                    log.exception("a training failed")
                tell(f"no update: {said(unfit)}")
                await asyncio.sleep(self.config.resend_s)
            await asyncio.sleep(self.config.pause_s)

    async def _frames(self, count: int) -> Frames:
        """The sensor's next frames; what it passed over is noted. Raises SensorError."""
        try:
            return await self.sensor.read(count)
        finally:
            self._tell("sensor", self.sensor.note)

    async def _keep(self, base: CurrentRelease, frames: Frames, trained: LocalTraining) -> None:
        """Into the outbox, as soon as there is room on the disk. Raises CodecError if it diverged."""
        draft = self._update(
            base,
            frames,
            num_examples=trained.num_examples,
            local_steps=trained.local_steps,
            loss=trained.loss,
            codec=self.books.codec_kind,
        )
        memory = self._remembered(frames, trained)
        await self._once_there_is_room(lambda: self.books.keep(draft, trained.delta, memory, base))
        self._kept(memory)
        log.info("trained %s loss=%.3f", log_keys(draft), trained.loss)

    async def _once_there_is_room(self, keep: Callable[[], Awaitable[object]]) -> None:
        """Training waits for a full or read-only disk; what it has is not lost meanwhile."""
        while True:
            try:
                await keep()
                return
            except OutboxError as full:
                self._tell("training", f"training waits: {full}")
                await asyncio.sleep(self.config.resend_s)

    def _remembered(self, frames: Frames, trained: LocalTraining | None = None) -> Memory:
        """What a restart has to know once this is kept."""
        counts = trained and trained.class_counts
        return Memory(
            num_trained=self.memory.num_trained + (trained is not None),
            num_read=self.memory.num_read + len(frames.images),
            class_counts=counts or self.memory.counts_by(self.classes),
            classes=self.classes,
        )

    def _kept(self, memory: Memory) -> None:
        self.memory = memory
        self.sequence += 1

    def _update(self, base: CurrentRelease, frames: Frames, **more: Any) -> Update:
        """The next one of this boot."""
        given = {"body": b"", **more}
        for name in ("num_examples", "local_steps"):
            given[name] = sendable.positive(given[name])
        given["loss"] = sendable.number(given["loss"])
        return Update(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            sequence=self.sequence,
            base_version=base.version,
            layout=self.layout.fingerprint,
            parts=self.layout.parts,
            captured_from=sendable.second(frames.captured_from),
            captured_to=sendable.second(frames.captured_to),
            generation=base.generation,
            base_sha256=base.sha256[:BASE_DIGEST_BYTES],
            **given,
        )

    async def _report_often(self) -> None:
        clock, period_s = asyncio.get_running_loop().time, self.config.status_s
        due_s = clock()
        while True:
            due_s = max(due_s + period_s, clock())
            await asyncio.sleep(due_s - clock())
            # Its PUBACK may come behind a whole snapshot; the next report does not wait for it.
            try:
                await self.report("online", timeout_s=period_s)
            except Exception:  # the loop must live
                log.exception("a status was not sent")

    async def report(self, state: Literal["online", "offline"], *, timeout_s: float = 30.0) -> None:
        """Publish the vehicle's status, retained; a link that is down is only logged."""
        topic = self.identity.status_topic
        try:
            frame = self.identity.frame(self.status(state))
            await self.transport.publish(topic, frame, retain=True, timeout_s=timeout_s)
        except (TransportError, wire.UnsendableError) as broken:
            log.warning("status not sent: %s", broken)

    def status(self, state: Literal["online", "offline"] = "online") -> Status:
        held = self.adoption.held
        return Status(
            vehicle=self.identity.vehicle,
            boot=self.identity.boot,
            state=state,
            version=-1 if held is None else held.version,
            bytes_up=self.delivery.num_bytes,
            bytes_down=self.adoption.num_bytes,
            waiting=len(self.outbox),
            note=fitting(self.note, MAX_NOTE),
            key=self.identity.key,
            outcomes=sendable.counts(self.outbox.outcomes),
        )

    @property
    def note(self) -> str:
        """What hinders, in words; empty if nothing does."""
        notes = list(self.notes.values())
        if "delivery" not in self.notes:  # else that says it already
            notes += filter(None, [self._overdue()])
        return "; ".join(notes)

    def _overdue(self) -> str:
        try:
            return self.delivery.overdue()
        except OutboxError as unreadable:
            return str(unreadable)

    def _tell(self, who: str, note: str) -> None:
        """Note what hinders; empty if nothing does any more."""
        # Names of files are in any encoding; a status is UTF-8.
        note = note.encode("utf-8", "backslashreplace").decode()
        if not note:
            self.notes.pop(who, None)
        elif self.notes.get(who) != note:
            self.notes[who] = note
            log.warning("%s", note)
