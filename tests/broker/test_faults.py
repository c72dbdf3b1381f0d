"""What brokers do on a bad day, each to a real vehicle, gateway and aggregator, on every kind of broker.

At the end one ledger holds for all: every update that was produced was resolved, each that has a receipt was
counted, none was counted twice, and the server ends with the bits of the same arrivals without faults.
"""

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.aggregator import AggregatorActor
from actors.call_coalescer import CallCoalescer
from actors.config import ServerConfig
from actors.gateway import Gateway
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.events.event_log import EventReader
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Release, Update
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.storage.journal import Journal
from fleetfl.transport.mqtt import Config as Mqtt
from fleetfl.vectors import Layout
from sim.chaos.tcp_proxy import proxy
from sim.processes.brokers import Broker, mosquitto, nats_server
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import Frames, SensorError
from vehicle_agent.training import LocalTraining

pytestmark = pytest.mark.broker
LAYOUT = Layout((("w", (200, 100)),))
FRAME_BYTES = 20_000
"""And some: one update, in int8."""
PATIENCE_S = 90.0
KINDS = ("nats", "mosquitto", "mosquitto-forgetful")


class Start:
    """Starts one kind of broker; what is the matter with it is said in the words of its settings."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder / "broker"
        self.rules = folder / "rules.acl"

    def __call__(self, **limits: Any) -> AbstractContextManager[Broker]:
        if self.kind == "nats":
            return nats_server(self.folder, redeliver_after_s=1, **limits)
        return mosquitto(self.folder, is_persistent=self.kind == "mosquitto", **limits)

    def denying(self) -> AbstractContextManager[Broker]:
        """Nobody may write to the uplink."""
        if self.kind == "nats":
            users = """
authorization {
  users: [{
    user: "all"
    password: "secret"
    permissions: {
      publish: {
        deny: ["fleetfl.1.f.up.>"]
      }
    }
  }]
}
"""
            return self(extra_config=users)
        self.rules.write_text("user all\ntopic read #\ntopic readwrite fleetfl/1/f/down/#\n")
        return self(extra_config=f"acl_file {self.rules}")

    def allow(self) -> None:
        """From the next start of the broker on."""
        self.rules.write_text("user all\ntopic readwrite #\n")
        settings = self.folder / "nats-server.conf"
        if settings.exists():
            settings.write_text(settings.read_text().replace("fleetfl.1.f.up.>", "nothing"))

    def with_small_queue(self) -> AbstractContextManager[Broker]:
        """With room for a few updates that nobody fetches."""
        if self.kind == "nats":
            return self(max_store_bytes=10 * FRAME_BYTES)
        return self(extra_config="max_queued_messages 3")

    def make_room(self, broker: Broker) -> None:
        """As whoever runs the broker does: a full NATS lets no session in, not even to fetch."""
        settings = self.folder / "nats-server.conf"
        if settings.exists():
            small = f"max_file_store: {10 * FRAME_BYTES}"
            settings.write_text(settings.read_text().replace(small, "max_file_store: 1000000000"))
            broker.restart()

    def forget(self) -> None:
        """While the broker is down: all its sessions and what it retained."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix == ".db":
                path.unlink()


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    return Start(request.param, tmp_path)


class Sensor:
    """As many frames as it was given."""

    num_frames = None

    def __init__(self) -> None:
        self.left = 0

    def read(self, count: int) -> Frames:
        if not self.left:
            raise SensorError("no frames left")
        self.left -= 1
        return Frames(np.zeros((count, 2, 2, 3), np.uint8), np.zeros(count, np.int64), 1, 2)


class Noise:
    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        delta = np.random.default_rng(seed).normal(size=start.shape).astype(np.float32)
        return LocalTraining(delta, len(frames.images), 1, 0.5)


async def at_once(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return call(*arguments, **keywords)


class Scene:
    """One server and one vehicle on this broker."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.broker = folder, broker
        zero = np.zeros(LAYOUT.size, np.float32)
        write_adapter(folder / "zero.safetensors", LAYOUT, zero)
        self.config = ServerConfig.model_validate(
            {
                "fleet": "f",
                "model": {"classes": ["a", "b"]},
                "transport": {"kind": "memory"},
                "state": folder / "state",
                "initial": folder / "zero.safetensors",
                "aggregator": {"kind": "fedbuff", "goal": 3},
                "release": {"kind": "int8"},
                "checkpoint_s": 0.5,
            }
        )
        self.aggregator = AggregatorActor(self.config)
        self.outbox = Outbox(folder / "outbox.db")
        self.sensor = Sensor()

    def mqtt(self, **settings: Any) -> Mqtt:
        return Mqtt(
            port=settings.pop("port", self.broker.port),
            username="all",
            password="secret",  # pyright: ignore[reportArgumentType]
            reconnect_min_s=0.05,
            reconnect_max_s=0.3,
            keepalive_s=2,
            **settings,
        )

    @contextlib.asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        connection = self.mqtt(max_payload_bytes=10_000).connect("gateway", clean_session=False)
        async with connection as link:
            gateway = Gateway(
                "f",
                0,
                transport=link,
                journal=Journal(self.config.journal_path),
                outcome=CallCoalescer(self.aggregator.outcomes_of).answer,
                announcement=self.aggregator.announcement,
                events=self.aggregator.events,
                look_s=0.5,
            )
            async with self._running(gateway.run()):
                yield

    @contextlib.asynccontextmanager
    async def vehicle(self, **settings: Any) -> AsyncIterator[Agent]:
        async with self.mqtt(**settings).connect("v1", clean_session=False) as link:
            agent = Agent(
                Config(resend_s=0.2, status_s=0.5, max_waiting=100, pause_s=0.01),
                Identity("f", "v1", "boot"),
                transport=link,
                sensor=SensorAside(self.sensor, at_once),
                trainer=TrainerAside(Noise(), work=at_once),
                layout=LAYOUT,
                codec=Int8(),
                frames_per_update=1,
                outbox=self.outbox,
                work=at_once,
            )
            async with self._running(agent.run()):
                yield agent

    @contextlib.asynccontextmanager
    async def _running(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        task = asyncio.create_task(work)
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def produce(self, num: int) -> None:
        """So many more updates are on their way."""
        num_made = len(self.outbox.produced()) + num
        self.sensor.left = num
        await until(lambda: len(self.outbox.produced()) == num_made)

    async def resolved(self) -> None:
        await until(lambda: len(self.outbox) == 0)

    def require_ledger(self) -> None:
        record = self.outbox.produced()
        assert {line.verdict for line in record} <= {"accepted", "duplicate"}
        events = EventReader(self.config.state / "events.jsonl").read()
        counted = Counter(e["sequence"] for e in events if e["event"] == "accepted")
        assert counted == {line.sequence: 1 for line in record}
        arrivals = self.aggregator.journal.rows(0, 10_000)
        assert self.aggregator.coordinator.published.sha256 == without_faults(
            self.config, [wire.decode(kept.frame) for kept in arrivals]
        )


def without_faults(config: ServerConfig, updates: list[Any]) -> bytes:
    coordinator = Coordinator.from_settings(
        config, np.zeros(LAYOUT.size, np.float32), LAYOUT, generation=updates[0].generation
    )
    for update in updates:
        assert isinstance(update, Update)
        coordinator.submit(update)
    return coordinator.published.sha256


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "never came true"
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def scene_on(broker: AbstractContextManager[Broker], folder: Path) -> Iterator[Scene]:
    """With the ledger at the end."""
    with broker as running:
        scene = Scene(folder, running)
        yield scene
        scene.require_ledger()
        scene.outbox.close()


def test_a_broker_that_is_killed_stopped_and_forgets_everything(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.retained_publisher.PATIENCE_S", 1.0)

    async def newest_release(scene: Scene) -> int:
        async with (
            scene.mqtt().connect("late") as late,
            late.subscribe(topics.release("f"), qos=0) as packets,
        ):
            release = wire.decode((await asyncio.wait_for(anext(packets), PATIENCE_S)).payload)
            assert isinstance(release, Release)
            return release.version

    async def story(scene: Scene) -> None:
        async with scene.server(), scene.vehicle():
            await scene.produce(5)
            scene.broker.kill()
            await scene.produce(3)
            await asyncio.to_thread(scene.broker.start)
            await scene.produce(3)
            await asyncio.to_thread(scene.broker.restart)
            await scene.produce(3)
            await scene.resolved()
            scene.broker.kill()
            start.forget()
            await asyncio.to_thread(scene.broker.start)
            # No new release: what was retained has to come from whoever looks after it.
            assert scene.aggregator.coordinator.version == 4
            while await newest_release(scene) < 4:
                await asyncio.sleep(0.1)
            await scene.produce(1)
            await scene.resolved()

    with scene_on(start(), tmp_path) as scene:
        asyncio.run(story(scene))


def test_updates_to_a_denied_topic_are_said_to_get_no_receipt_and_go_when_it_is_allowed(
    start: Start, tmp_path: Path
) -> None:
    """MQTT 3.1.1 says Success for what the rules forbid."""

    async def story(scene: Scene) -> None:
        async with scene.server(), scene.vehicle() as agent:
            await scene.produce(4)
            await until(lambda: "without a receipt" in agent.note)
            assert "access rules" in agent.note
            assert len(scene.outbox) == 4
            start.allow()
            await asyncio.to_thread(scene.broker.restart)
            await scene.resolved()
            await until(lambda: "without a receipt" not in agent.note)

    with scene_on(start.denying(), tmp_path) as scene:
        asyncio.run(story(scene))


def test_updates_above_the_brokers_limit_go_in_smaller_pieces(start: Start, tmp_path: Path) -> None:
    """Frames of 20 KB, a broker that takes 12 KB, and a vehicle that has not been told."""

    async def story(scene: Scene) -> None:
        async with scene.server(), scene.vehicle():
            await scene.produce(3)
            await scene.resolved()

    with scene_on(start(max_payload_bytes=12_000), tmp_path) as scene:
        asyncio.run(story(scene))


def test_what_a_full_queue_dropped_comes_again(start: Start, tmp_path: Path) -> None:
    """The gateway is away, the vehicle sends, and the broker has room for a few."""

    async def story(scene: Scene) -> None:
        async with scene.vehicle():
            async with scene.server():
                await scene.produce(1)
                await scene.resolved()
            await scene.produce(15)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(start.make_room, scene.broker)
            async with scene.server():
                await scene.resolved()

    with scene_on(start.with_small_queue(), tmp_path) as scene:
        asyncio.run(story(scene))


def test_a_slow_link_that_then_forgets_the_connection(start: Start, tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        with proxy(scene.broker.host, scene.broker.port) as link:
            async with scene.server(), scene.vehicle(port=link.port):
                link.set(up_bytes_per_s=60_000, down_bytes_per_s=60_000, delay_s=0.05)
                await scene.produce(5)
                await until(lambda: len(scene.outbox) <= 3)
                link.set(half_open=True)
                await asyncio.sleep(0.2)
                link.heal()
                await scene.produce(2)
                await scene.resolved()

    with scene_on(start(), tmp_path) as scene:
        asyncio.run(story(scene))
