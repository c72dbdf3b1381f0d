"""The agent on the memory broker, against a server that the test plays."""

import asyncio
import contextlib
import dataclasses

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from fleetfl import topics, wire
from fleetfl.chunks import Assembler, split
from fleetfl.codecs import decoder
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.codecs.top_signs import Config as TopSigns
from fleetfl.identity import Keyring, OneKey, Signer
from fleetfl.messages import MAX_NOTE, Receipt, Status, Update
from fleetfl.releases import Published
from fleetfl.transport import PacketRefused, TransportError, memory
from fleetfl.vectors import Layout
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Newest, Outbox
from vehicle_agent.sensors import Frames, SensorError
from vehicle_agent.training import LocalTraining, Summed

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (4,)),))
ME = Identity("f", "v1", "boot")
INT8 = Int8()


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


def server_at(version, value=0.0, *, layout=LAYOUT, lineage="one"):
    """A server whose releases, up to this version, end at `value`."""
    server = Published(np.zeros(layout.size, np.float32), layout, Float32(), lineage=lineage)
    for left in range(version - 1, -1, -1):
        server.advance(np.full(layout.size, value + left, np.float32))
    return server


async def announce(link, server, *, slots_since=-1, by=None, limit=1_000_000, **fields):
    """What a gateway publishes; `fields` replace those of the news."""
    whole = wire.encode(server.whole(), by)
    for index, chunk in enumerate(split(whole, limit)):
        await link.publish(topics.snapshot("f", index), chunk, retain=True)
    for release in server.since(slots_since):
        for index, chunk in enumerate(split(wire.encode(release, by), limit)):
            topic = topics.release_slot("f", release.version, index)
            await link.publish(topic, chunk, retain=True)
    news = wire.encode(replace(server.since(-1)[-1], **fields), by)
    if len(news) > limit:
        news = wire.encode(replace(server.since(-1)[-1], body=b""), by)
    await link.publish(topics.release("f"), news, retain=True)
    return len(whole), len(news)


@contextlib.asynccontextmanager
async def running(
    broker,
    outbox,
    *,
    agent=None,
    sensor=None,
    trainer=None,
    layout=LAYOUT,
    work=now,
    me=ME,
    server_key=None,
    max_payload_bytes=1_000_000,
    codec=INT8,
    error_feedback=0.9,
    sums=None,
    **settings,
):
    """The agent at work, and the server's link with what comes up on it."""
    async with (
        broker.connect("server") as server,
        broker.connect("v1", clean_session=False, max_payload_bytes=max_payload_bytes) as link,
        server.subscribe("fleetfl/1/f/up/#") as uplink,
    ):
        config = Config(**{"resend_s": 0.05, "status_s": 60, "max_waiting": 3, **settings})
        follower = agent and agent.adoption.follower
        agent = Agent(
            config,
            me,
            transport=link,
            sensor=sensor or Camera(),
            trainer=trainer or HalfWayTo3(),
            layout=layout,
            codec=codec,
            error_feedback=error_feedback,
            frames_per_update=6,
            outbox=outbox,
            server_key=server_key,
            work=work,
            sums=sums,
        )
        agent.adoption.follower = follower or agent.adoption.follower
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
        ("release", wire.encode(Status("v1", "b", "online", 0, 0, 0, 0, "")), "a Status, expected"),
        (
            "release",
            wire.encode(server_at(1, layout=OTHER).since(0)[0]),
            "this vehicle's model has",
        ),
        (
            "snapshot/0",
            wire.encode(replace(server_at(1).whole(), sha256=bytes(32))),
            "expected 0000",
        ),
        ("snapshot/0", wire.encode(server_at(1, layout=OTHER).whole()), "this vehicle's model has"),
        ("snapshot/0", b"junk", "release dropped: frame starts with b'junk'"),
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


async def until(condition, patience_s=5.0):
    for _ in range(int(patience_s / 0.005)):
        await asyncio.sleep(0.005)
        if condition():
            return
    raise AssertionError("never came true")


def holds(agent, server):
    held = agent.adoption.held
    return held is not None and held.vector.tobytes() == server.vector.tobytes()


BIG = Layout((("w", (64, 32)),))


class Idle:
    def train(self, start, frames, *, seed):
        return LocalTraining(np.zeros_like(start), len(frames.images), 1, 0.5)


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


def big_server(lineage="one"):
    start = np.random.default_rng(3).normal(size=BIG.size).astype(np.float32)
    return Published(start, BIG, Int8(), lineage=lineage)


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
            for lie in ({"version": 10**6}, {"lineage": "forged"}):
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
            restarted = big_server("two")
            for _ in range(num_releases):
                restarted.advance(restarted.vector + np.float32(2))
            await announce(link, restarted)
            await until(lambda: holds(agent, restarted))
            assert agent.adoption.held.lineage == "two"

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


def signer(number):
    return Signer("f", Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


SIGNED = dataclasses.replace(ME, signer=signer(1))


def test_what_a_vehicle_says_is_signed_and_its_status_comes_first(outbox, tmp_path):
    """So a server that notes keys at their first use believes all of it, also what an earlier boot left."""
    keys = Keyring("f", tmp_path / "keys", first_use=True)

    async def scene():
        broker = memory.Broker()
        outbox.put(EARLIER, wire.encode(EARLIER, signer(1)))
        async with running(broker, outbox, me=SIGNED) as (_, server, uplink):
            await announce(server, server_at(0))
            said = [await asyncio.wait_for(believed(uplink), 10) for _ in range(2)]
            # Without a receipt it may go out again before there is a new one.
            while (update := await asyncio.wait_for(believed(uplink), 10)) == EARLIER:
                pass
        return [*said, update]

    async def believed(uplink):
        return wire.decode((await anext(uplink)).payload, keys)

    status, earlier, update = asyncio.run(scene())
    assert isinstance(status, Status)
    assert status.key == signer(1).public
    assert (earlier, update.sequence) == (EARLIER, 0)
    assert wire.decode(SIGNED.offline(), keys).state == "offline"


EARLIER = Update("v1", "earlier", 3, 0, LAYOUT.fingerprint, 8, 1, 1, 2, 0.5, "int8", b"")


def test_an_update_whose_signature_the_server_does_not_know_is_kept(outbox):
    """The operator may still list the key; until then the vehicle says what it waits for."""

    async def scene():
        broker = memory.Broker()
        async with running(broker, outbox, me=SIGNED, pause_s=60) as (agent, server, uplink):
            await announce(server, server_at(0))
            update = await next_update(uplink)
            receipt = Receipt("v1", update.boot, update.sequence, "refused", "signature", 0, 0)
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))
            await until(lambda: "does not know our signature" in agent.note)
            again = await next_update(uplink)
            assert again == update
            assert len(outbox) == 1
            await receive(server, update)
            await until(lambda: not len(outbox))

    asyncio.run(scene())


def test_with_a_server_key_only_the_server_is_believed(outbox, tmp_path):
    signer(9).write_public("server", tmp_path)
    server_key = OneKey("f", tmp_path / "server.pub")

    async def scene():
        broker = memory.Broker()
        settings = {"server_key": server_key, "pause_s": 60}
        async with running(broker, outbox, **settings) as (agent, server, uplink):
            await announce(server, server_at(3))
            await until(lambda: "frame of 'server' is not signed" in agent.note)
            await announce(server, server_at(3), by=signer(1))
            await until(lambda: "does not fit the frame and the key" in agent.note)
            assert agent.adoption.held is None
            await announce(server, server_at(3), by=signer(9))
            update = await next_update(uplink)
            assert update.base_version == 3
            receipt = Receipt("v1", update.boot, update.sequence, "accepted", "", 0, 1)
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt, signer(1)))
            await asyncio.sleep(0.05)
            assert len(outbox) == 1
            await server.publish(topics.receipt("f", "v1"), wire.encode(receipt, signer(9)))
            await until(lambda: not len(outbox))

    asyncio.run(scene())


def test_an_update_above_the_limit_goes_in_chunks(outbox):
    async def scene():
        broker = memory.Broker()
        settings = {"layout": BIG, "max_payload_bytes": 500, "pause_s": 60}
        async with running(broker, outbox, **settings) as (_, server, uplink):
            await announce(server, big_server())
            assembler, frame, num_chunks = Assembler(), None, 0
            while frame is None:
                packet = await asyncio.wait_for(anext(uplink), 2)
                if packet.topic.endswith("/update"):
                    assert len(packet.payload) <= 500
                    num_chunks += 1
                    frame = assembler.add("v1", packet.payload, 0.0)
            assert num_chunks > 1
            assert wire.decode(frame).sequence == 0
            assert frame == outbox.frame("boot", 0)

    asyncio.run(scene())


class Breaks:
    """A link on which the publish of this number, counted from 0, fails."""

    max_payload_bytes = 100

    def __init__(self, number):
        self.number, self.payloads = number, []

    async def publish(self, topic, payload, **_):
        if self.number == 0:
            self.number = -1
            raise TransportError("no PUBACK")
        self.number -= 1
        self.payloads.append(payload)


def test_after_a_break_chunks_go_on_where_it_was_and_a_repeat_is_whole(outbox):
    """300 bytes in chunks of 75 of data are four: two, a break, the other two; then all four again."""
    frame = bytes(300)
    link = Breaks(2)
    agent = Agent(
        Config(),
        ME,
        transport=link,
        sensor=Camera(),
        trainer=Idle(),
        layout=LAYOUT,
        codec=Int8(),
        frames_per_update=1,
        outbox=outbox,
    )

    async def scene():
        with pytest.raises(TransportError):
            await agent.delivery._send(("boot", 0), frame)
        await agent.delivery._send(("boot", 0), frame)
        await agent.delivery._send(("boot", 0), frame)

    asyncio.run(scene())
    chunks = split(frame, 100)
    assert len(chunks) == 4
    assert link.payloads == [*chunks, *chunks]
    assert agent.delivery.num_bytes == sum(len(payload) for payload in link.payloads)


def test_snapshot_and_differences_in_chunks_are_followed(outbox):
    """Beside them are chunks that an older, larger snapshot left."""

    async def scene():
        server, broker = big_server(), memory.Broker()
        settings = {"layout": BIG, "trainer": Idle(), "max_waiting": 1}
        async with running(broker, outbox, **settings) as (agent, link, _):
            left = split(wire.encode(big_server("old").whole()), 500)
            for index, chunk in enumerate(left):
                await link.publish(topics.snapshot("f", index + 5), chunk, retain=True)
            await announce(link, server, limit=1000)
            await until(lambda: holds(agent, server))
            for _ in range(3):
                server.advance(server.vector + np.float32(1))
                await announce(link, server, limit=1000, slots_since=server.version - 1)
                await until(lambda: holds(agent, server))
            assert agent.note == ""

    asyncio.run(scene())


def test_a_long_note_is_cut_to_what_a_status_holds(outbox):
    agent = Agent(
        Config(),
        ME,
        transport=Breaks(-1),
        sensor=Camera(),
        trainer=Idle(),
        layout=LAYOUT,
        codec=Int8(),
        frames_per_update=1,
        outbox=outbox,
    )
    agent.notes["release"] = "x" * 1000
    assert wire.decode(wire.encode(agent.status())).note == "x" * MAX_NOTE


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
            assert outbox.ends == {"expired stale": 1}
            assert agent.status().ends == {"expired stale": 1}
            return outbox.residual(LAYOUT.fingerprint)

    async def never(item, tries):
        raise TransportError("no link")

    expected = np.zeros(4) if was_sent else np.full(4, 1.5)
    np.testing.assert_array_equal(asyncio.run(scene()), expected)


def test_updates_too_stale_to_count_are_not_sent_after_a_long_absence(outbox, make_update):
    """Bases 9 and 10, newest 60, 50 allowed: one expires, one goes up, with all of the record told."""
    for sequence, base in enumerate((9, 10)):
        update = make_update(boot="earlier", sequence=sequence, base_version=base, lineage="one")
        outbox.put(update, wire.encode(update))

    async def scene():
        broker = memory.Broker()
        server = server_at(60)
        server.max_staleness = 50
        async with broker.connect("gateway") as link:
            await announce(link, server, max_staleness=50)
        async with running(broker, outbox, max_waiting=1, resend_s=0.1) as (agent, link, uplink):
            await until(lambda: agent.adoption.held is not None)
            await until(lambda: "expired stale" in outbox.ends)
            update = await next_update(uplink)
            while update.sequence != 1:
                update = await next_update(uplink)
            await receive(link, update)
            await until(lambda: "accepted" in outbox.ends)
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
            await announce(link, Published(start, layout, Int8(), lineage="one"))
            assembler, frame = Assembler(), None
            while frame is None or not isinstance(wire.decode(frame), Update):
                packet = await asyncio.wait_for(anext(uplink), 5)
                frame = assembler.add("v1", packet.payload, 0.0)
            assert (
                8192 <= agent.delivery.max_bytes < 40_000
            )  # a frame of 148 KB goes in even pieces
            assert frame == outbox.frame("boot", 0)

    asyncio.run(scene())
