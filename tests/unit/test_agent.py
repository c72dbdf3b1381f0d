"""The agent on the memory broker, against a server that the test plays."""

import asyncio
import contextlib

import numpy as np
import pytest

from fleetfl import topics, wire
from fleetfl.codecs import decoder
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.messages import Receipt, Release, Status, Update
from fleetfl.transport import memory
from fleetfl.vectors import Layout, digest
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox
from vehicle_agent.sensors import Frames, SensorError
from vehicle_agent.trainer import LocalTraining

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (4,)),))
ME = Identity("f", "v1", "boot")


class Camera:
    num_frames = None

    def read(self, count):
        return Frames(np.zeros((count, 16, 16, 3), np.uint8), np.zeros(count, np.int64), 1.0, 2.0)


class HalfWayTo3:
    """A trainer whose delta is half of what is missing to 3."""

    def train(self, start, frames, *, seed):
        return LocalTraining((3 - start) / 2, len(frames.images), 2, 0.25)


async def now(call, *arguments, **keywords):
    """`work` that does not leave the loop."""
    await asyncio.sleep(0.001)
    return call(*arguments, **keywords)


def release(version, vector, **fields):
    body = decoder("float32", Layout.flat(vector.size)).encode(vector)
    right = {"layout": LAYOUT.fingerprint, "sha256": digest(vector)}
    return wire.encode(Release(version, codec="float32", body=body, **{**right, **fields}))


@contextlib.asynccontextmanager
async def running(broker, outbox, *, sensor=None, trainer=None, **settings):
    """The agent at work, and the server's link with what comes up on it."""
    async with (
        broker.connect("server") as server,
        broker.connect("v1", clean_session=False) as link,
        server.subscribe("fleetfl/1/f/up/#") as uplink,
    ):
        config = Config(**{"resend_s": 0.05, "status_s": 60, "max_waiting": 3, **settings})
        agent = Agent(
            config,
            ME,
            transport=link,
            sensor=sensor or Camera(),
            trainer=trainer or HalfWayTo3(),
            layout=LAYOUT,
            codec=Int8(),
            frames_per_update=6,
            outbox=outbox,
            work=now,
        )
        task = asyncio.create_task(agent.run())
        try:
            yield agent, server, uplink
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def next_update(uplink) -> Update:
    while True:
        packet = await asyncio.wait_for(uplink.__anext__(), 2)
        packet.ack()
        message = wire.decode(packet.payload)
        if isinstance(message, Update):
            return message


async def receive(server, update, verdict="accepted"):
    receipt = Receipt("v1", update.boot, update.sequence, verdict, "", 0, 1)
    await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))


@pytest.fixture
def outbox(tmp_path):
    box = Outbox(tmp_path / "outbox.db")
    yield box
    box.close()


def test_release_in_update_out_forgotten_on_receipt(outbox):
    """From 1, half way to 3 is a delta of 1."""

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, pause_s=60) as (_, server, uplink):
            await server.publish(
                topics.release("f"), release(7, np.ones(4, np.float32)), retain=True
            )
            update = await next_update(uplink)
            assert len(outbox) == 1
            await receive(server, update)
            for _ in range(200):
                await asyncio.sleep(0.005)
                if not len(outbox):
                    return update
        raise AssertionError("the receipt was not taken")

    update = asyncio.run(scene())
    assert (update.vehicle, update.boot, update.sequence) == ("v1", "boot", 0)
    assert (update.base_version, update.num_examples, update.local_steps) == (7, 6, 2)
    assert (update.captured_from, update.captured_to) == (1.0, 2.0)
    delta = decoder(update.codec, Layout.flat(4)).decode(update.body)
    np.testing.assert_allclose(delta, np.ones(4), atol=0.01)


def test_without_receipts_it_resends_the_same_and_stops_training(outbox):
    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, max_waiting=2) as (_, server, uplink):
            await server.publish(
                topics.release("f"), release(0, np.zeros(4, np.float32)), retain=True
            )
            seen = [await next_update(uplink) for _ in range(6)]
        assert len(outbox) == 2
        return seen

    seen = asyncio.run(scene())
    assert {u.sequence for u in seen} == {0, 1}
    assert len({wire.encode(u) for u in seen}) == 2


def test_only_the_newest_release_is_trained_from(outbox):
    async def scene():
        broker = memory.Broker()
        async with broker.connect("server") as server:
            for version in range(5):
                await server.publish(
                    topics.release("f"), release(version, np.zeros(4, np.float32)), retain=True
                )
        async with running(broker, outbox) as (_, _, uplink):
            return (await next_update(uplink)).base_version

    assert asyncio.run(scene()) == 4


def test_updates_of_an_earlier_boot_are_sent_first(outbox, make_update):
    outbox.put("earlier", 3, wire.encode(make_update(boot="earlier", sequence=3)))

    async def scene():
        async with running(memory.Broker(), outbox) as (_, _, uplink):
            return await next_update(uplink)

    update = asyncio.run(scene())
    assert (update.boot, update.sequence) == ("earlier", 3)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"junk", "release dropped: frame starts with b'junk'"),
        (release(1, np.zeros(4, np.float32), layout="other"), "layout other where this vehicle's"),
        (release(1, np.zeros(4, np.float32), sha256="no"), "version 1: SHA-256 does not match"),
        (wire.encode(ME and Status("v1", "b", "online", 0, 0, 0, 0, "")), "a Status, expected"),
    ],
)
def test_unfit_releases_are_dropped_and_reported(outbox, frame, says):
    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, status_s=0.01) as (agent, server, _):
            await server.publish(topics.release("f"), frame, retain=True)
            await asyncio.sleep(0.05)
            assert agent.newest is None
            return agent.status().note

    assert says in asyncio.run(scene())


def test_a_diverged_training_sends_nothing_and_goes_on(outbox):
    class Diverged:
        calls = 0

        def train(self, start, frames, *, seed):
            self.calls += 1
            value = np.nan if self.calls == 1 else 1.0
            return LocalTraining(np.full(4, value, np.float32), 6, 1, value)

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, trainer=Diverged()) as (agent, server, uplink):
            await server.publish(
                topics.release("f"), release(0, np.zeros(4, np.float32)), retain=True
            )
            update = await next_update(uplink)
            return agent.note, update

    note, update = asyncio.run(scene())
    assert "value 0 of 4 is nan" in note
    assert update.sequence == 0


def test_a_failing_sensor_is_reported_and_tried_again(outbox):
    class Dark(Camera):
        reads = 0

        def read(self, count):
            self.reads += 1
            if self.reads == 1:
                raise SensorError("camera unplugged")
            return super().read(count)

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, sensor=Dark()) as (agent, server, uplink):
            await server.publish(
                topics.release("f"), release(0, np.zeros(4, np.float32)), retain=True
            )
            await next_update(uplink)
            return agent.note

    assert "camera unplugged" in asyncio.run(scene())
