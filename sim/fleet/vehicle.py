"""One vehicle of a virtual fleet: the real agent while it is on, and a few numbers while it is off."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fleetfl.codecs import CodecConfig
from fleetfl.protocol.messages import Update
from fleetfl.releases.versions import CurrentRelease
from fleetfl.transport import Will
from fleetfl.transport.memory import Broker
from fleetfl.vectors import Layout
from sim.fleet.availability import Window
from sim.fleet.devices import Device
from sim.fleet.dice import normal, seed_of, uniform
from sim.fleet.executors import Executor
from sim.fleet.learning import Learner
from sim.fleet.links import Link
from sim.fleet.network import LinkedTransport, Meter
from sim.fleet.outbox import MemoryOutbox
from sim.fleet.releases import SharedFollower, SharedVersions
from vehicle_agent.agent import Agent, Identity
from vehicle_agent.agent import Config as AgentConfig
from vehicle_agent.outbox import Config as OutboxConfig
from vehicle_agent.outbox import Verdict
from vehicle_agent.ports import Sums
from vehicle_agent.sensors import Frames, SensorSource, passed_over
from vehicle_agent.training import LocalTraining, Summed, Training

Ending = Literal["done", "off", "lost"]
"""Of a session: its trainings are counted, its window is over, or power went in the middle of one."""


class PowerLost(BaseException):
    """In the middle of a training: nobody hears of it again, nor does any `except Exception`."""


@dataclass(frozen=True, slots=True)
class DeviceHardware:
    """What a vehicle has on board, as its seed deals it."""

    device_name: str
    device: Device
    pace: float
    """2 takes twice as long as the device would."""
    link: Link


@dataclass(frozen=True)
class FleetContext:
    """What all vehicles of a fleet share, and how to deal out what is each one's own, at its first need."""

    fleet: str
    num_partitions: int
    broker: Broker
    max_payload_bytes: int
    agent: AgentConfig
    outbox: OutboxConfig
    layout: Layout
    codec: CodecConfig
    error_feedback: float
    frames_per_update: int
    images_per_update: float
    """What a training costs, in whole images."""
    versions: SharedVersions
    executor: Executor
    lost_share: float
    """Of trainings that never end."""
    jitter_sigma: float
    frame_every_s: float
    kit: Callable[[int, int], DeviceHardware]
    """By number and seed."""
    windows: Callable[[int], Iterator[Window]]
    """By seed."""
    learner: Callable[[int], Learner]
    """By number."""


class _Outbox(MemoryOutbox):
    """Tells its vehicle when an update is kept, and when one has been answered for."""

    def __init__(
        self, bounds: OutboxConfig, kept: Callable[[], None], answered: Callable[[], None]
    ) -> None:
        super().__init__(bounds, now=asyncio.get_running_loop().time)
        self.kept, self.answered = kept, answered

    def put(
        self, update: Update, frame: bytes, *, held: CurrentRelease | None = None, **left: Any
    ) -> None:
        # Not `held`: a vehicle that is off long would keep a version alive that nobody else holds.
        super().put(update, frame, **left)
        self.kept()

    def resolve(
        self, boot: str, sequence: int, verdict: Verdict, *reason: str, **left: Any
    ) -> bool:
        done = super().resolve(boot, sequence, verdict, *reason, **left)
        self.answered()
        return done


class VirtualVehicle:
    """Of one that was never on there is little more than its number: a fleet may have 100,000 of them."""

    __slots__ = (
        "_kit",
        "boots",
        "held",
        "learner",
        "meter",
        "name",
        "num_lost",
        "num_trainings",
        "number",
        "outbox",
        "seed",
        "session_ends",
        "trainings_left",
        "windows",
        "works",
    )

    def __init__(self, name: str, number: int, works: FleetContext, *, seed: int) -> None:
        self.name, self.number, self.works, self.seed = name, number, works, seed
        self.windows = works.windows(seed)
        self.meter = Meter()
        self.boots = self.num_trainings = self.num_lost = 0
        self.held: CurrentRelease | None = None
        """What it holds when it is switched on: kept on its disk, shared with the others in memory."""
        self.outbox: _Outbox | None = None
        self.learner: Learner | None = None
        self.session_ends: asyncio.Future[Ending] | None = None
        self.trainings_left = 0
        self._kit: DeviceHardware | None = None

    @property
    def kit(self) -> DeviceHardware:
        if self._kit is None:
            self._kit = self.works.kit(self.number, self.seed)
        return self._kit

    @property
    def seconds_per_training(self) -> float:
        """In the middle."""
        return self.kit.pace * self.works.images_per_update / self.kit.device.images_per_s

    async def session(self, *, trainings: int | None = None, until_s: float = math.inf) -> Ending:
        """On until its window closes, until so many trainings are answered for, or until power is lost."""
        loop, works = asyncio.get_running_loop(), self.works
        if self.outbox is None or self.learner is None:
            self.outbox = _Outbox(works.outbox, self._kept, self._answered)
            self.learner = works.learner(self.number)
        self.boots += 1
        self.trainings_left = -1 if trainings is None else trainings
        self.session_ends = ends = loop.create_future()
        identity = Identity(
            works.fleet,
            self.name,
            boot=f"boot{self.boots}",
            num_partitions=works.num_partitions,
            seed=seed_of(self.seed, self.boots) % 2**31,
        )
        timer = loop.call_at(until_s, self._end, "off") if until_s < math.inf else None
        try:
            async with works.broker.connect(
                self.name,
                clean_session=False,
                will=Will(identity.status_topic, identity.offline()),
                max_payload_bytes=works.max_payload_bytes,
            ) as client:
                transport = LinkedTransport(client, self.kit.link, self.meter)
                return await self._live(identity, transport, ends)
        except PowerLost:
            self.num_lost += 1
            return "lost"
        finally:
            self.session_ends = None
            if timer is not None:
                timer.cancel()

    async def _live(
        self, identity: Identity, transport: LinkedTransport, ends: "asyncio.Future[Ending]"
    ) -> Ending:
        works = self.works
        assert self.outbox is not None
        assert self.learner is not None
        follower = SharedFollower(works.layout, works.versions, self._still_held())
        agent = Agent(
            works.agent,
            identity,
            transport=transport,
            sensor=_Camera(self, self.learner.sensor),
            trainer=_Trainer(self, self.learner),
            layout=works.layout,
            codec=works.codec,
            error_feedback=works.error_feedback,
            frames_per_update=works.frames_per_update,
            outbox=self.outbox,
            follower=follower,
            work=_at_once,
        )
        life = asyncio.create_task(agent.run(), name=self.name)
        try:
            await asyncio.wait({life, ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            self.held = follower.held
        if not life.cancelled() and (error := life.exception()) is not None:
            raise error
        await agent.report("offline", timeout_s=2.0)
        return ends.result()

    def _still_held(self) -> CurrentRelease | None:
        """None for a version so old that the way on is a snapshot anyway: then nobody need keep it."""
        held = self.held
        return None if held is None else self.works.versions.held.get(held.sha256)

    def _end(self, how: Ending) -> None:
        if self.session_ends is not None and not self.session_ends.done():
            self.session_ends.set_result(how)

    def _kept(self) -> None:
        if self.trainings_left > 0:
            self.trainings_left -= 1

    def _answered(self) -> None:
        if self.trainings_left == 0 and not len(self.outbox or ()):
            self._end("done")

    async def train(
        self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int
    ) -> LocalTraining:
        """Train for as long as this vehicle's device takes. Raises PowerLost in the middle of some."""
        works, nth = self.works, self.num_trainings
        self.num_trainings += 1
        jitter = math.exp(works.jitter_sigma * normal(self.seed, nth, "jitter"))
        seconds = self.seconds_per_training * jitter
        if uniform(self.seed, nth, "lost") < works.lost_share:
            await self._spend(seconds * uniform(self.seed, nth, "when"))
            raise PowerLost(self.name)
        result = works.executor.begin(trainer, start, frames, seed=seed)
        await self._spend(seconds)
        return result()

    async def sums(self, sums: Sums, vector: np.ndarray, frames: Frames) -> Summed:
        """Sum features; each frame is charged as in a training, though it takes no backward pass."""
        await self._spend(self.kit.pace * len(frames.images) / self.kit.device.images_per_s)
        return sums(vector, frames)

    async def frames(self, sensor: SensorSource, count: int) -> Frames:
        """Wait for the next frames, taken now in virtual time; for ever once a session's work is done."""
        loop = asyncio.get_running_loop()
        if self.trainings_left == 0:  # the session ends with the last receipt
            await loop.create_future()
        await asyncio.sleep(self.works.frame_every_s * count)
        now = loop.time()
        return replace(sensor.read(count), captured_from=now, captured_to=now)

    async def _spend(self, seconds: float) -> None:
        self.meter.training_s += seconds
        self.meter.training_joules += seconds * self.kit.device.watts
        await asyncio.sleep(seconds)


class _Camera:
    """SensorPort of a vehicle that is on."""

    def __init__(self, vehicle: VirtualVehicle, source: SensorSource) -> None:
        self.vehicle, self.source = vehicle, source

    @property
    def note(self) -> str:
        return passed_over(self.source)

    async def read(self, count: int) -> Frames:
        return await self.vehicle.frames(self.source, count)


class _Trainer:
    """TrainerPort of a vehicle that is on."""

    def __init__(self, vehicle: VirtualVehicle, learner: Learner) -> None:
        self.vehicle, self.learner = vehicle, learner

    async def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        return await self.vehicle.train(self.learner.trainer, start, frames, seed=seed)

    async def sums(self, vector: np.ndarray, frames: Frames) -> Summed | None:
        if self.learner.sums is None:
            return None
        return await self.vehicle.sums(self.learner.sums, vector, frames)


async def _at_once(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """An agent's `work` that takes no virtual time."""
    return call(*given, **named)
