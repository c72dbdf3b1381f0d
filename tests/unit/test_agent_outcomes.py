"""What becomes of updates that are refused, expire, wait or cannot be sent."""

import asyncio
import dataclasses

import numpy as np
import pytest

from fleetfl.codecs import decoder
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.codecs.top_signs import Config as TopSigns
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import Assembler
from fleetfl.protocol.messages import SIGNATURE, Receipt, Update
from fleetfl.releases.versions import Published
from fleetfl.transport import PacketRefused, TransportError, memory
from fleetfl.vectors import Layout
from tests.agent_at_work import (
    LAYOUT,
    HalfWayTo3,
    announce,
    next_update,
    receive,
    running,
    server_at,
    until,
)
from vehicle_agent.agent import Identity
from vehicle_agent.outbox import Memory, Newest, Outbox
from vehicle_agent.training import LocalTraining

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("reason", "after"), [("stale", [4, 3, 0, 0]), ("undone", [0, 0, 0, 0])])
def test_what_a_refused_update_held_goes_with_the_next_and_survives_a_restart(
    tmp_path, reason, after
):
    """Keep 1 of 4 values by sign: deltas [4, 3, 0, 0] send 4 first; refused, the residual is all of it.

    What was learned from a version that was rolled back goes with none, nor does what its packing left.
    """

    class Same:
        def train(self, start, frames, *, seed):
            delta = np.array([4, 3, 0, 0], np.float32)
            return LocalTraining(delta, len(frames.images), 2, 0.25)

    async def scene():
        box = Outbox(tmp_path / "outbox.db")
        broker = memory.Broker()
        async with running(
            broker,
            box,
            trainer=Same(),
            codec=TopSigns(keep=0.25),
            error_feedback=1.0,
            max_waiting=1,
        ) as (agent, server, uplink):
            await announce(server, server_at(0))
            first = wire.decode((await anext(uplink)).payload)
            while not isinstance(first, Update):
                first = wire.decode((await anext(uplink)).payload)
            sent = decoder("top_signs", LAYOUT).decode(first.body)
            left = box.residual(LAYOUT.fingerprint).copy()
            refusal = Receipt("v1", first.boot, first.sequence, "refused", reason, 60, 60)
            agent.config = agent.config.model_copy(update={"max_waiting": 0})  # trains no more
            await server.publish(topics.receipt("f", "v1"), wire.encode(refusal))
            while len(box):
                await asyncio.sleep(0.01)
            returned = box.residual(LAYOUT.fingerprint)
        box.close()
        return sent, left, returned

    sent, left, returned = asyncio.run(scene())
    np.testing.assert_array_equal(sent, [4, 0, 0, 0])
    np.testing.assert_array_equal(left, [0, 3, 0, 0])
    np.testing.assert_array_equal(returned, after)


@pytest.mark.parametrize("was_sent", [False, True])
def test_what_expires_returns_only_if_the_server_cannot_have_counted_it(outbox, was_sent):
    """Half way from 0 to 3 is 1.5: float32 leaves no residual, so an expired update leaves all of 1.5."""

    async def scene():
        broker = memory.Broker()
        async with running(
            broker, outbox, codec=Float32(), error_feedback=1.0, max_waiting=1, resend_s=60
        ) as (agent, server, uplink):
            if not was_sent:
                agent.delivery._offer = never
            await announce(server, server_at(1, 0.0))
            await until(lambda: len(outbox) == 1)
            if was_sent:
                await next_update(uplink)
            agent.config = agent.config.model_copy(update={"max_waiting": 0})
            await agent.books.sweep(Newest("one", 52, 50))
            assert outbox.outcomes == {"expired stale": 1}
            assert agent.status().outcomes == {"expired stale": 1}
            return outbox.residual(LAYOUT.fingerprint)

    async def never(item, tries):
        raise TransportError("no link")

    expected = np.zeros(4) if was_sent else np.full(4, 1.5)
    np.testing.assert_array_equal(asyncio.run(scene()), expected)


def test_updates_too_stale_to_count_are_not_sent_after_a_long_absence(outbox, make_update):
    """Bases 9 and 10, newest 60, 50 allowed: one expires, one goes up, with all of the record told."""
    for sequence, base in enumerate((9, 10)):
        update = make_update(boot="earlier", sequence=sequence, base_version=base, generation="one")
        outbox.put(update, wire.encode(update))

    async def scene():
        broker = memory.Broker()
        server = server_at(60)
        server.max_staleness = 50
        async with broker.connect("gateway") as link:
            await announce(link, server, max_staleness=50)
        async with running(broker, outbox, max_waiting=1, resend_s=0.1) as (agent, link, uplink):
            await until(lambda: agent.adoption.held is not None)
            await until(lambda: "expired stale" in outbox.outcomes)
            update = await next_update(uplink)
            while update.sequence != 1:
                update = await next_update(uplink)
            await receive(link, update)
            await until(lambda: "accepted" in outbox.outcomes)
        assert [(p.sequence, p.verdict) for p in outbox.produced()][:2] == [
            (0, "expired"),
            (1, "accepted"),
        ]

    asyncio.run(scene())


def test_training_goes_on_after_a_restart_offline_and_with_other_random_numbers(tmp_path):
    """Same version without a broker that has it, the trainer's memory, and no seed twice."""
    seeds = []

    class Remembers(HalfWayTo3):
        def train(self, start, frames, *, seed):
            seeds.append((seed, float(start[0])))
            counts = [float(len(seeds))]
            return dataclasses.replace(super().train(start, frames, seed=seed), class_counts=counts)

    async def life(boot, broker, box, waiting):
        me = Identity("f", "v1", boot, seed=1)
        settings = {"me": me, "trainer": Remembers(), "max_waiting": waiting}
        async with running(broker, box, **settings) as (agent, server, _):
            if boot == "first":
                await announce(server, server_at(4, 1.0))
            await until(lambda: len(box) == waiting)
            assert agent.adoption.held.version == 4
            return agent.memory

    for boot, waiting in (("first", 2), ("second", 3)):
        box = Outbox(tmp_path / "outbox.db")
        remembered = asyncio.run(life(boot, memory.Broker(), box, waiting))
        assert remembered == box.memory()
        box.close()
    assert remembered.num_trained == 3
    assert remembered.num_read == 18
    assert remembered.class_counts == [3.0]
    assert seeds == [(1_000_003, 1.0), (1_000_004, 1.0), (1_000_005, 1.0)]


def test_counts_by_class_are_forgotten_where_the_classes_changed(tmp_path):
    """Two classes change places: as many as before, but what was counted is of the other one."""
    ours = Layout.flat(4).meant({"classes": ["car", "boat"]})
    swapped = Layout.flat(4).meant({"classes": ["boat", "car"]})

    class Remembers(HalfWayTo3):
        def train(self, start, frames, *, seed):
            return dataclasses.replace(
                super().train(start, frames, seed=seed), class_counts=[9.0, 1.0]
            )

    async def life(box):
        broker = memory.Broker()
        settings = {"trainer": Remembers(), "layout": ours, "max_waiting": 1}
        async with running(broker, box, **settings) as (_, server, _uplink):
            await announce(server, server_at(1, 1.0, layout=ours))
            await until(lambda: len(box) == 1)

    box = Outbox(tmp_path / "outbox.db")
    asyncio.run(life(box))
    kept = box.memory()
    assert kept.counts_by(ours.means("classes")) == [9.0, 1.0]
    assert kept.counts_by(swapped.means("classes")) == []
    older = Memory(class_counts=[9.0, 1.0])
    assert older.counts_by(ours.means("classes")) == [9.0, 1.0]
    box.close()


def test_a_poisonous_update_does_not_hold_up_the_others(outbox, make_update):
    for sequence in range(3):
        update = make_update(boot="earlier", sequence=sequence)
        outbox.put(update, wire.encode(update))

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, resend_s=60) as (agent, _, uplink):
            publish = agent.transport.publish

            async def picky(topic, payload, **more):
                message = wire.decode(payload)
                if isinstance(message, Update) and message.sequence == 0:
                    raise PacketRefused("the connection broke 3 times")
                await publish(topic, payload, **more)

            agent.transport.publish = picky
            came = [(await next_update(uplink)).sequence for _ in range(2)]
            assert len(outbox) == 3
            return came

    assert asyncio.run(scene()) == [1, 2]


def test_what_gets_no_receipt_goes_in_smaller_and_smaller_payloads(outbox):
    """A broker that acknowledges and drops what is above its limit: under MQTT 3.1.1 nobody is told."""

    class Noise:
        def train(self, start, frames, *, seed):
            delta = np.random.default_rng(seed).normal(size=start.shape).astype(np.float32)
            return LocalTraining(delta, len(frames.images), 1, 0.5)

    async def scene():
        broker = memory.Broker()
        layout = Layout((("w", (40_000,)),))
        settings = {"layout": layout, "trainer": Noise(), "codec": Float32(), "max_waiting": 1}
        async with running(broker, outbox, resend_s=0.02, **settings) as (agent, link, uplink):
            publish = agent.transport.publish

            async def narrow(topic, payload, **more):
                if len(payload) <= 30_000:
                    await publish(topic, payload, **more)

            agent.transport.publish = narrow
            start = np.random.default_rng(3).normal(size=layout.size).astype(np.float32)
            await announce(link, Published(start, layout, Int8(), generation="one"))
            assembler, frame = Assembler(), None
            while frame is None or not isinstance(wire.decode(frame), Update):
                packet = await asyncio.wait_for(anext(uplink), 5)
                frame = assembler.add("v1", packet.payload, 0.0)
            assert (
                8192 <= agent.delivery.max_bytes < 40_000
            )  # a frame of 148 KB goes in even pieces
            assert frame == outbox.frame("boot", 0)

    asyncio.run(scene())


@pytest.mark.parametrize("reason", ["", SIGNATURE])
def test_another_vehicles_receipt_settles_nothing_here(outbox, reason):
    """Who may publish here can bring one that the server has signed for a namesake update of their own."""

    async def scene():
        verdict = "refused" if reason else "accepted"
        async with running(memory.Broker(), outbox, max_waiting=1) as (agent, server, uplink):
            await announce(server, server_at(1))
            update = await next_update(uplink)
            foreign, own = (
                Receipt(name, update.boot, update.sequence, verdict, reason, 0, 1)
                for name in ("v2", "v1")
            )
            topic = topics.receipt("f", "v1")
            await server.publish(topic, wire.encode(foreign))
            await server.publish(topic, b"")
            again = await next_update(uplink)
            assert again == update
            assert outbox.outcomes == {}
            assert not agent.delivery.is_refused
            await server.publish(topic, wire.encode(own))
            await until(lambda: agent.delivery.is_refused or outbox.outcomes == {"accepted": 1})

    asyncio.run(scene())
