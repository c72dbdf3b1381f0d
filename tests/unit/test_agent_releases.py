"""Which releases an agent follows, and how it gets there after a while away or from bad news."""

import asyncio
import contextlib
import dataclasses

import numpy as np
import pytest

from fleetfl.protocol import topics, wire
from fleetfl.transport import memory
from tests.agent_at_work import (
    BIG,
    ME,
    Idle,
    announce,
    big_server,
    holds,
    now,
    running,
    server_at,
    until,
)

pytestmark = pytest.mark.unit


@contextlib.asynccontextmanager
async def awake(broker, outbox, server, versions, *, since=0, **settings):
    """A vehicle that followed up to version `since`, slept, and meets what is on the broker now.

    Gives agent and server's link. `versions` are made and announced while it sleeps.
    """
    settings = {"layout": BIG, "trainer": Idle(), "max_waiting": 1, **settings}
    async with broker.connect("gateway") as link:
        for _ in range(since):
            server.advance(server.vector + np.float32(1))
        await announce(link, server)
        async with running(broker, outbox, **settings) as (agent, _, _):
            await until(lambda: holds(agent, server))
        for _ in range(versions):
            server.advance(server.vector + np.float32(1))
            await announce(link, server, slots_since=server.version - 1)
        assert broker.num_unacknowledged("v1") == 0
        async with running(broker, outbox, agent=agent, **settings) as (woken, _, _):
            yield woken, link


def test_vehicle_that_slept_through_500_releases_takes_one_snapshot(outbox):
    """Whole adapter, and the retained news that told it: nothing was queued for it."""

    async def scene():
        server = big_server()
        async with awake(memory.Broker(), outbox, server, 500) as (agent, link):
            await until(lambda: holds(agent, server))
            assert agent.adoption.held.version == 500
            whole = len(wire.encode(server.whole()))
            assert (
                whole < agent.adoption.num_bytes <= whole + len(wire.encode(server.since(499)[0]))
            )
            server.advance(server.vector + np.float32(1))
            await announce(link, server, slots_since=500)
            await until(lambda: holds(agent, server))

    asyncio.run(scene())


def test_gap_of_three_is_closed_by_two_slots_of_the_ring(outbox):
    async def scene():
        server = big_server()
        async with awake(memory.Broker(), outbox, server, 3, since=40) as (agent, _):
            await until(lambda: holds(agent, server))
            assert agent.adoption.num_bytes == sum(len(wire.encode(r)) for r in server.since(40))

    asyncio.run(scene())


@pytest.mark.parametrize("slot", [None, b"", b"junk", "an older one"])
def test_hole_in_the_ring_is_bridged_by_the_snapshot(outbox, caplog, slot):
    async def scene():
        server, broker = big_server(), memory.Broker()
        async with awake(broker, outbox, server, 0, since=40, fetch_s=0.05) as (agent, link):
            for _ in range(3):
                server.advance(server.vector + np.float32(1))
            frame = wire.encode(server.since(40)[0]) if slot == "an older one" else slot
            if frame is not None:
                await link.publish(topics.release_slot("f", 42, 0), frame, retain=True)
            await announce(link, server, slots_since=43)
            await until(lambda: holds(agent, server))
        assert "no way to version 43 but the snapshot" in caplog.text

    asyncio.run(scene())


@pytest.mark.parametrize(
    "lie",
    [{"sha256": bytes(32)}, {"body": b"junk"}, {"codec": "os"}, {"base_version": 7}],
    ids=lambda lie: next(iter(lie)),
)
def test_corrupt_release_is_healed_by_the_snapshot(outbox, caplog, lie):
    async def scene():
        server = big_server()
        async with awake(memory.Broker(), outbox, server, 0, since=2) as (agent, link):
            server.advance(server.vector + np.float32(1))
            await announce(link, server, **lie)
            await until(lambda: holds(agent, server))
            assert agent.note == ""
            assert "no way to version 3 but the snapshot" in caplog.text
            server.advance(server.vector + np.float32(1))
            await announce(link, server)
            await until(lambda: holds(agent, server))

    asyncio.run(scene())


def test_forged_news_of_a_far_version_cost_a_snapshot_and_change_nothing(outbox):
    async def scene():
        server = big_server()
        async with awake(memory.Broker(), outbox, server, 0, since=2) as (agent, link):
            for lie in ({"version": 10**6}, {"generation": "forged"}):
                await announce(link, server, **lie)
            server.advance(server.vector + np.float32(1))
            await announce(link, server)
            await until(lambda: holds(agent, server))
            assert agent.adoption.held.version == 3

    asyncio.run(scene())


@pytest.mark.parametrize("num_releases", [0, 1, 40])
def test_restarted_server_of_lower_version_is_followed(outbox, num_releases):
    async def scene():
        server = big_server()
        async with awake(memory.Broker(), outbox, server, 0, since=40) as (agent, link):
            restarted = big_server("1-two")
            for _ in range(num_releases):
                restarted.advance(restarted.vector + np.float32(2))
            await announce(link, restarted)
            await until(lambda: holds(agent, restarted))
            assert agent.adoption.held.generation == "1-two"

    asyncio.run(scene())


def test_older_signed_releases_of_any_generation_are_not_taken_also_after_a_restart(outbox):
    """What a broker replays takes nobody back: neither a lower generation nor a lower version."""

    async def scene():
        broker, old, new = (
            memory.Broker(),
            server_at(1, generation="1-old"),
            server_at(20, generation="2-new"),
        )
        earlier = server_at(3, value=7.0, generation="2-new")
        for restart in (False, True):
            me = dataclasses.replace(ME, boot=f"{restart}")
            settings = {"pause_s": 60, "max_waiting": 9, "me": me}
            async with running(broker, outbox, **settings) as (agent, link, _):
                if not restart:
                    await announce(link, new)
                await until(lambda: holds(agent, new) and len(outbox))
                for replayed in (old, earlier):
                    await announce(link, replayed)
                    about = f"version {replayed.version} of {replayed.generation}, held is version 20 of"
                    await until(lambda about=about: about in agent.note)
                    assert holds(agent, new)
                await announce(link, new)
                await until(lambda: "older" not in agent.note)

    asyncio.run(scene())


def test_repeated_and_old_news_cost_nothing_more(outbox):
    async def scene():
        server = big_server()
        async with awake(memory.Broker(), outbox, server, 0, since=3) as (agent, link):
            await until(lambda: agent.adoption.num_bytes > 0)
            before, sent = agent.adoption.num_bytes, 0
            for release in (*server.since(-1), *server.since(-1)):
                frame = wire.encode(release)
                sent += len(frame)
                await link.publish(topics.release("f"), frame, retain=True)
            await until(lambda: agent.adoption.num_bytes >= before + sent)
            assert agent.adoption.num_bytes == before + sent
            assert holds(agent, server)

    asyncio.run(scene())


@pytest.mark.parametrize("odd", [b"no frame", b"FFC\x02 no chunk", b"FFL\x02\x90"])
def test_what_lies_beside_a_snapshot_hides_it_from_nobody(outbox, odd):
    async def scene():
        server = big_server()
        broker = memory.Broker()
        async with broker.connect("stranger") as link:
            await link.publish(topics.snapshot("f", 0), odd, retain=True)
            async with awake(broker, outbox, server, 0) as (agent, _):
                await link.publish(topics.snapshot("f", 7), odd, retain=True)
                for _ in range(100):
                    server.advance(server.vector + np.float32(1))
                await announce(link, server)
                await until(lambda: holds(agent, server))

    asyncio.run(scene())


def test_snapshot_that_is_not_there_yet_is_asked_for_again(outbox):
    async def scene():
        server, broker = big_server(), memory.Broker()
        settings = {"layout": BIG, "trainer": Idle(), "fetch_s": 0.02, "resend_s": 0.02}
        async with running(broker, outbox, **settings) as (agent, link, _):
            news = wire.encode(server.since(-1)[0])
            await link.publish(topics.release("f"), news, retain=True)
            await until(lambda: "waited 0.02 s for a snapshot" in agent.note)
            await link.publish(topics.snapshot("f", 0), wire.encode(server.whole()), retain=True)
            await until(lambda: holds(agent, server))
            assert agent.note == ""

    asyncio.run(scene())


def test_releases_are_applied_while_training_goes_on(outbox):
    """The training under way keeps its vector; the next starts from the newest."""
    bases, go_on = [], asyncio.Event()

    class Slow(Idle):
        def train(self, start, frames, *, seed):
            bases.append(start)
            return super().train(start, frames, seed=seed)

    async def work(call, *arguments, **keywords):
        result = await now(call, *arguments, **keywords)
        if len(bases) == 1:
            await go_on.wait()
        return result

    async def scene():
        server, broker = big_server(), memory.Broker()
        settings = {"layout": BIG, "trainer": Slow(), "work": work}
        async with running(broker, outbox, **settings) as (agent, link, _):
            await announce(link, server)
            await until(lambda: len(bases) == 1)
            first = bases[0].copy()
            for _ in range(4):
                server.advance(server.vector + np.float32(1))
                await announce(link, server)
            await until(lambda: holds(agent, server))
            np.testing.assert_array_equal(bases[0], first)
            go_on.set()
            await until(lambda: len(bases) >= 2)  # it may have gone on to the third
            assert bases[1].tobytes() == server.vector.tobytes()

    asyncio.run(scene())
