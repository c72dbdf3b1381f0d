"""A gateway, a real broker and a vehicle that comes and goes: it ends with the server's bits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from actors.gateway import Gateway
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Release, Snapshot
from fleetfl.releases.generations import BEFORE_ALL, Order, order_of
from fleetfl.releases.versions import Follower, Published
from fleetfl.storage.journal import Journal
from fleetfl.transport import Transport
from fleetfl.transport.mqtt import Config as Mqtt
from fleetfl.vectors import Layout
from sim.processes.brokers import Broker
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining

pytestmark = pytest.mark.broker
LAYOUT = Layout((("w", (64, 64)),))
PATIENCE_S = 20.0


class Server:
    """Releases on demand; `announced` are on the broker."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.mqtt = Mqtt(port=broker.port, reconnect_min_s=0.05, reconnect_max_s=0.2)
        self.folder, self.announced = folder, BEFORE_ALL
        start = np.random.default_rng(5).normal(size=LAYOUT.size).astype(np.float32)
        self.published = Published(start, LAYOUT, Int8(), generation="one")

    async def announcement(self, than: Order) -> tuple[Snapshot, list[Release]]:
        self.announced = than
        while order_of(self.published) <= than:
            await asyncio.sleep(0.005)
        return self.published.whole(), self.published.later_than(than)

    async def release(self, num: int) -> None:
        dice = np.random.default_rng(self.published.version)
        for _ in range(num):
            step = dice.normal(size=LAYOUT.size).astype(np.float32)
            self.published.advance(self.published.vector + step)
            await self.until_announced()

    async def until_announced(self) -> None:
        while self.announced < order_of(self.published):
            await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        journal = Journal(self.folder / "journal.sqlite")
        async with self.mqtt.connect("gateway", clean_session=False) as link:
            gateway = Gateway(
                "f",
                0,
                transport=link,
                journal=journal,
                outcome=lambda _: asyncio.sleep(60),  # pyright: ignore[reportArgumentType]
                announcement=self.announcement,
                events=EventLog(self.folder / "events.jsonl"),
            )
            task = asyncio.create_task(gateway.run())
            try:
                await self.until_announced()
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                journal.close()


class Still:
    """A camera and a trainer that change nothing."""

    num_frames = None

    def read(self, count: int) -> Frames:
        return Frames(np.zeros((count, 16, 16, 3), np.uint8), np.zeros(count, np.int64), 1, 2)

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        return LocalTraining(np.zeros_like(start), len(frames.images), 1, 0.5)


@contextlib.asynccontextmanager
async def vehicle(server: Server, follower: Follower | None = None) -> AsyncIterator[Agent]:
    """Online with a session, holding what it held before."""
    outbox = Outbox(server.folder / "outbox.db")
    async with server.mqtt.connect("v1", clean_session=False) as link:
        agent = make_agent(link, outbox, follower)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            outbox.close()


def make_agent(link: Transport, outbox: Outbox, follower: Follower | None = None) -> Agent:
    return Agent(
        Config(max_waiting=1, fetch_s=PATIENCE_S),
        Identity("f", "v1", "boot"),
        transport=link,
        sensor=SensorAside(Still()),
        trainer=TrainerAside(Still()),
        layout=LAYOUT,
        codec=Int8(),
        frames_per_update=2,
        outbox=outbox,
        follower=follower,
    )


async def until_level(agent: Agent, server: Server) -> None:
    """Both hold the same version, and the same bits."""
    while (held := agent.adoption.held) is None or held.version < server.published.version:
        await asyncio.sleep(0.01)
    assert held.vector.tobytes() == server.published.vector.tobytes()


def test_vehicle_that_comes_and_goes_ends_with_the_servers_bits(
    broker: Broker, tmp_path: Path
) -> None:
    async def scenario() -> None:
        server = Server(broker, tmp_path)
        async with server.running():
            await server.release(3)
            async with vehicle(server) as agent:
                await until_level(agent, server)
                await server.release(20)  # live, one by one
                await until_level(agent, server)
                follower = agent.adoption.follower

            await server.release(3)
            steps = sum(len(wire.encode(r)) for r in server.published.since(23))
            async with vehicle(server, follower) as agent:
                await until_level(agent, server)
                assert agent.adoption.num_bytes == steps  # of the ring

            await server.release(60)
            whole = len(wire.encode(server.published.whole()))
            news = len(wire.encode(server.published.since(85)[0]))
            async with vehicle(server, follower) as agent:
                await until_level(agent, server)
                assert whole <= agent.adoption.num_bytes <= whole + news
                await asyncio.to_thread(broker.restart)
                await server.release(2)
                await until_level(agent, server)

    asyncio.run(asyncio.wait_for(scenario(), 60))
