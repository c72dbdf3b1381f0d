"""A vehicle on a disk that is full, or read-only: it says so, loses nothing, and goes on by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fleetfl.codecs.int8 import Config as Int8
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Receipt
from fleetfl.releases.versions import Published
from fleetfl.transport import Transport, memory
from fleetfl.vectors import Layout
from tests.small_disk import fill, read_only, small_disk
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox, OutboxError
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining

pytestmark = pytest.mark.slow
LAYOUT = Layout((("w", (64, 32)),))
PATIENCE_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


class Camera:
    num_frames = None

    def read(self, count: int) -> Frames:
        labels = np.zeros(count, np.int64)
        return Frames(np.zeros((count, 2, 2, 3), np.uint8), labels, 1.0, 2.0)

    def skip(self, count: int) -> None: ...


class Noise:
    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        delta = np.random.default_rng(seed).normal(size=start.shape).astype(np.float32)
        return LocalTraining(delta, len(frames.images), 1, 0.5)


@contextlib.asynccontextmanager
async def training(outbox: Outbox) -> AsyncIterator[tuple[Agent, Transport]]:
    broker = memory.Broker()
    published = Published(np.zeros(LAYOUT.size, np.float32), LAYOUT, Int8(), generation="one")
    async with broker.connect("server") as server, broker.connect("v1") as link:
        await server.publish(topics.snapshot("f", 0), wire.encode(published.whole()), retain=True)
        news = wire.encode(published.since(-1)[0])
        await server.publish(topics.release("f"), news, retain=True)
        agent = Agent(
            Config(resend_s=0.05, status_s=0.05, max_waiting=10_000, pause_s=0.01),
            Identity("f", "v1", "boot"),
            transport=link,
            sensor=SensorAside(Camera()),
            trainer=TrainerAside(Noise()),
            layout=LAYOUT,
            codec=Int8(),
            frames_per_update=2,
            outbox=outbox,
        )
        task = asyncio.create_task(agent.run())
        try:
            yield agent, server
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "never came true"
        await asyncio.sleep(0.01)


def test_training_waits_for_room_on_a_full_disk_and_goes_on(disk: Path) -> None:
    outbox = Outbox(disk / "outbox.db")

    async def scene() -> None:
        async with training(outbox) as (agent, server):
            await until(lambda: len(outbox) >= 3)
            ballast = fill(disk)
            await until(lambda: "training waits: outbox" in agent.note)
            assert "training waits: outbox" in agent.status().note
            receipt = Receipt("v1", "boot", 0, "accepted", "", 0, 0)
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            await asyncio.sleep(0.3)
            num_full = agent.sequence
            await asyncio.sleep(0.3)
            assert agent.sequence == num_full
            ballast.unlink()
            await until(
                lambda: agent.sequence >= num_full + 3 and "training waits" not in agent.note
            )
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            await until(lambda: outbox.outcomes == {"accepted": 1})

    asyncio.run(scene())
    outbox.close()
    again = Outbox(disk / "outbox.db")
    made = [line.sequence for line in again.produced()]
    assert made == list(range(len(made)))
    assert len(again) == len(made) - 1
    again.close()


def test_an_outbox_that_grows_until_the_disk_is_full_stays_whole(disk: Path) -> None:
    outbox = Outbox(disk / "outbox.db")

    async def scene() -> None:
        async with training(outbox) as (agent, _):
            await until(lambda: "training waits" in agent.note)

    asyncio.run(scene())
    num_kept = len(outbox)
    outbox.close()
    again = Outbox(disk / "outbox.db")
    assert len(again) == num_kept > 10
    frames = [again.frame(*item.name) for item in again.waiting()]
    assert all(frame is not None and wire.decode(frame) for frame in frames)
    again.close()
    assert not (disk / "outbox.db.damaged").exists()


def test_a_read_only_disk_is_an_error_that_says_so_and_no_damage(disk: Path) -> None:
    Outbox(disk / "outbox.db").close()
    with (
        read_only(disk),
        pytest.raises(OutboxError, match=r"outbox\.db: ."),
    ):
        Outbox(disk / "outbox.db")
    Outbox(disk / "outbox.db").close()
