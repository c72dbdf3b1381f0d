"""The agent on the memory broker, against a server that the test plays."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from fleetfl.codecs import decoder
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Status
from fleetfl.transport import memory
from fleetfl.vectors import Layout
from tests.agent_at_work import (
    Camera,
    announce,
    next_update,
    receive,
    running,
    server_at,
)
from vehicle_agent.sensors import SensorError
from vehicle_agent.training import LocalTraining, Summed

pytestmark = pytest.mark.unit


def test_release_in_update_out_forgotten_on_receipt(outbox):
    """From 1, half way to 3 is a delta of 1."""

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, pause_s=60) as (_, server, uplink):
            await announce(server, server_at(7, 1.0))
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


def test_sums_go_first_and_training_waits_for_the_head_they_make(outbox):
    """Sums of 5 frames at version 0; what is trained next starts from version 1, the head's."""

    def sums(vector, frames):
        return Summed(b"sums of " + vector.tobytes(), len(frames.images), 0.5)

    async def scene():
        broker = memory.Broker()
        settings = {"sums": sums, "sums_of_frames": 5, "sums_wait_s": 20}
        async with running(broker, outbox, **settings) as (_, server, uplink):
            published = server_at(0)
            await announce(server, published)
            first = await next_update(uplink)
            assert (first.codec, first.num_examples, first.base_version) == ("feature_sums", 5, 0)
            assert first.body == b"sums of " + bytes(16)
            await receive(server, first)
            published.replace(np.ones(4, np.float32))
            await announce(server, published)
            second = await next_update(uplink)
            assert (second.codec, second.sequence, second.base_version) == ("int8", 1, 1)

    asyncio.run(scene())


def test_without_a_head_training_goes_on_after_a_while(outbox):
    def sums(vector, frames):
        return Summed(b"sums", len(frames.images), 0.5)

    async def scene():
        broker = memory.Broker()
        settings = {"sums": sums, "sums_of_frames": 5, "sums_wait_s": 0.0}
        async with running(broker, outbox, **settings) as (_, server, uplink):
            await announce(server, server_at(0))
            kinds = {(await next_update(uplink)).codec for _ in range(4)}
            assert kinds == {"feature_sums", "int8"}

    asyncio.run(scene())


def test_without_receipts_it_resends_the_same_and_stops_training(outbox):
    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, max_waiting=2) as (_, server, uplink):
            await announce(server, server_at(0))
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
                await announce(server, server_at(version))
        async with running(broker, outbox) as (_, _, uplink):
            return (await next_update(uplink)).base_version

    assert asyncio.run(scene()) == 4


def test_updates_of_an_earlier_boot_are_sent_first(outbox, make_update):
    earlier = make_update(boot="earlier", sequence=3)
    outbox.put(earlier, wire.encode(earlier))

    async def scene():
        async with running(memory.Broker(), outbox) as (_, _, uplink):
            return await next_update(uplink)

    update = asyncio.run(scene())
    assert (update.boot, update.sequence) == ("earlier", 3)


OTHER = Layout((("v", (4,)),))


@pytest.mark.parametrize(
    ("topic", "frame", "says"),
    [
        ("release", b"junk", "release dropped: frame starts with b'junk'"),
        (
            "release",
            wire.encode(Status("v1", "b", "online", 0, 0, 0, 0, "")),
            "a Status that names",
        ),
        (
            "release",
            wire.encode(server_at(1, layout=OTHER).since(0)[0]),
            "model differs in tensors (this vehicle's: 1 of 4 values)",
        ),
        (
            "snapshot/0",
            wire.encode(replace(server_at(1).whole(), sha256=bytes(32))),
            "expected 0000",
        ),
        ("snapshot/0", wire.encode(server_at(1, layout=OTHER).whole()), "model differs in tensors"),
        ("snapshot/0", b"junk", "a snapshot is passed over: frame starts with b'junk'"),
    ],
)
def test_unfit_releases_and_snapshots_are_dropped_and_reported(outbox, topic, frame, says):
    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, status_s=0.01) as (agent, server, _):
            await server.publish(f"fleetfl/1/f/down/{topic}", frame, retain=True)
            if topic != "release":
                news = wire.encode(server_at(1).since(0)[0])
                await server.publish(topics.release("f"), news, retain=True)
            await asyncio.sleep(0.05)
            assert agent.adoption.held is None
            return agent.status().note

    assert says in asyncio.run(scene())


def test_a_diverged_training_sends_nothing_and_goes_on(outbox, caplog):
    class Diverged:
        calls = 0

        def train(self, start, frames, *, seed):
            self.calls += 1
            value = np.nan if self.calls == 1 else 1.0
            return LocalTraining(np.full(4, value, np.float32), 6, 1, value)

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, trainer=Diverged()) as (agent, server, uplink):
            await announce(server, server_at(0))
            update = await next_update(uplink)
            assert agent.note == ""
            return update

    update = asyncio.run(scene())
    assert "value 0 of 4 is nan" in caplog.text
    assert update.sequence == 0


def test_a_failing_sensor_is_reported_and_tried_again(outbox, caplog):
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
            await announce(server, server_at(0))
            await next_update(uplink)
            assert agent.note == ""

    asyncio.run(scene())
    assert "camera unplugged" in caplog.text
