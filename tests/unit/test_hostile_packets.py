"""What strangers and broken vehicles send: acknowledged, counted and, if possible, answered."""

import asyncio

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from fleetfl.coordination.coordinator import Outcome
from fleetfl.defences.rate_limits import Config as Limits
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import split
from fleetfl.protocol.messages import Receipt, Release, Rollback, Snapshot, Status, Update
from fleetfl.protocol.signing import Keyring, OneKey
from fleetfl.releases.frame_bounds import max_frame_bytes
from fleetfl.releases.versions import CurrentRelease
from fleetfl.transport import memory
from fleetfl.vectors import Layout
from tests.agent_at_work import (
    LAYOUT as VEHICLE_LAYOUT,
)
from tests.agent_at_work import (
    announce,
    holds,
    next_update,
    running,
    server_at,
    until,
)
from tests.gateway_at_work import FLEET, LAYOUT, Scene, accept, signer, update_topic
from vehicle_agent.outbox import Memory
from vehicle_agent.sensors import Frames

pytestmark = pytest.mark.unit
MESSAGES = [
    Release("l", 1, 0, bytes(8), bytes(32), "float32", b""),
    Snapshot("l", 1, bytes(8), bytes(32), "float32", b""),
    Rollback("x", "l", 1, bytes(8), bytes(32), "float32", b""),
    Receipt("v1", "b", 0, "accepted", "", 0, 0),
    Status("v1", "b", "online", 0, 0, 0, 0, ""),
]


def nested(message, at, *, depth=1200, signer=None):
    """The message with arrays in arrays in its field `at`, which a later version may have added."""
    values = msgspec.msgpack.decode(wire.encode(message)[4:])
    parts = [msgspec.msgpack.encode(v) for v in [*values, *[0] * 14][: max(len(values), at + 1)]]
    parts[at] = b"\x91" * depth + b"\x01"
    signed = 0 if signer is None else wire.SIGNED
    frame = b"FFL" + bytes([2 | signed, 0x90 + len(parts)]) + b"".join(parts)
    return frame if signer is None else frame + signer.sign(frame)


def nested_everywhere(message, **how):
    return [nested(message, at, **how) for at in range(14)]


def test_nested_packets_are_acknowledged_and_the_uplink_goes_on(tmp_path, make_update):
    """As many as a gateway may have under way, fifty times over; then a sound update gets its receipt."""
    scene = Scene(tmp_path, accept)
    update = make_update()
    packets = [
        (topic, frame)
        for message in [*MESSAGES, update]
        for frame in nested_everywhere(message)
        for topic in (update_topic(), topics.status(FLEET, "v1", 1))
    ]
    packets += [
        (update_topic(), nested(update, 9, depth=100_000)),
        (update_topic(), wire.encode(update)),
    ]
    receipts = asyncio.run(scene.play(packets))
    assert receipts[-1] == Receipt("v1", "b", 0, "accepted", "", 2, 5)
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert scene.gateway.malformed.total > 100


def test_an_update_that_cannot_be_read_gets_a_receipt_that_says_so(tmp_path, make_update):
    """Its date is before 1970, or its end is from another world."""
    values = msgspec.msgpack.decode(wire.encode(make_update(sequence=1))[4:])
    values[8] = -3600
    frames = [
        b"FFL\x02" + msgspec.msgpack.encode(values),
        nested(make_update(sequence=2), 12),
        b"FFL\x03" + wire.encode(make_update(sequence=3))[4:],
    ]
    scene = Scene(tmp_path, accept)
    receipts = asyncio.run(scene.play([(update_topic(), frame) for frame in frames]))
    told = [(r.sequence, r.verdict, r.reason) for r in receipts]
    assert told == [(n, "refused", "format") for n in (1, 2, 3)]
    assert "nested" in receipts[1].detail
    assert "format 3, expected 2" in receipts[2].detail
    assert [e["reason"] for e in scene.events("refused")] == ["format"] * 3
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_with_keys_only_its_vehicle_is_told_of_what_cannot_be_read(tmp_path, make_update):
    signer(1).write_public("v1", tmp_path / "keys")
    scene = Scene(tmp_path, accept, keys=Keyring(FLEET, tmp_path / "keys"))
    updates = [make_update(sequence=n) for n in range(3)]
    frames = [nested(updates[0], 12), nested(updates[1], 12, signer=signer(2))]
    frames.append(nested(updates[2], 12, signer=signer(1)))
    receipts = asyncio.run(scene.play([(update_topic(), frame) for frame in frames]))
    told = [(r.sequence, r.reason) for r in receipts]
    assert told == [(0, "signature"), (1, "signature"), (2, "format")]


@pytest.mark.parametrize(
    "topic",
    [
        "fleetfl/1/f/up/0/v 1/update",
        "fleetfl/1/f/up/0/../update",
        "fleetfl/1/f/up/0//update",
        f"fleetfl/1/f/up/0/{'x' * 400}/update",
        "fleetfl/1/f/up/0/v1\n/update",
        "fleetfl/1/f/up/0/v1/other",
    ],
)
def test_strange_topics_stop_nothing(tmp_path, make_update, topic):
    scene = Scene(tmp_path, accept, keys=Keyring(FLEET, tmp_path / "keys", first_use=True))
    one = signer(1)
    status = Status("v1", "b", "online", -1, 0, 0, 0, "", one.public)
    packets = [
        (topic, wire.encode(status, one)),
        (topics.status(FLEET, "v1", 1), wire.encode(status, one)),
        (update_topic(), wire.encode(make_update(), one)),
    ]
    (receipt,) = asyncio.run(scene.play(packets))
    assert receipt.verdict == "accepted"
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["v1.pub"]


def test_strangers_packets_are_counted_and_not_written_out(tmp_path):
    """300 of 150 names: 20 lines at once, then one in ten seconds."""
    scene = Scene(tmp_path, accept, keys=Keyring(FLEET, tmp_path / "keys", first_use=True))
    packets = [(update_topic(f"s{n % 150}"), b"junk") for n in range(300)]
    assert asyncio.run(scene.play(packets)) == []
    assert scene.gateway.malformed.total == 300
    assert len(scene.events("malformed")) == 20
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_forgeries_are_answered_and_told_for_a_while_only(tmp_path, make_update):
    """Each answer costs a signature: 200 at once, then 20 a second."""
    scene = Scene(tmp_path, accept, keys=Keyring(FLEET, tmp_path / "keys", first_use=True))
    frame = wire.encode(make_update(), signer(1))
    receipts = asyncio.run(scene.play([(update_topic(), frame)] * 400))
    assert 200 <= len(receipts) == len(scene.events("refused")) < 300
    assert scene.broker.num_unacknowledged("gateway") == 0


class Odd(Exception):
    """Whatever a library may raise."""


def test_what_raises_within_is_acknowledged_too(tmp_path, make_update):
    class Broken:
        def objection(self, name, frame, signature, *, offered):
            raise Odd(name)

    scene = Scene(tmp_path, accept, keys=Broken())
    frames = [wire.encode(make_update(sequence=n), signer(1)) for n in range(5)]
    assert asyncio.run(scene.play([(update_topic(), frame) for frame in frames])) == []
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert scene.gateway.malformed.total == 5


def test_what_the_journal_cannot_take_whatever_the_disk_does_is_acknowledged(tmp_path, make_update):
    class Picky:
        def __init__(self, journal):
            self.journal, self.rows = journal, journal.rows

        async def append(self, update, frame):
            if update.sequence < 5:
                raise OverflowError("int too large")
            return await self.journal.append(update, frame)

    scene = Scene(tmp_path, accept)
    scene.journal = Picky(scene.journal)  # pyright: ignore
    frames = [wire.encode(make_update(sequence=n)) for n in range(6)]
    (receipt,) = asyncio.run(scene.play([(update_topic(), frame) for frame in frames]))
    assert receipt.sequence == 5
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_frames_larger_than_the_layout_allows_are_refused_at_their_first_chunk(
    tmp_path, make_update
):
    most = max_frame_bytes(LAYOUT)
    scene = Scene(tmp_path, accept, max_frame_bytes=most)
    large = wire.encode(make_update(sequence=1, body=bytes(most)))
    chunks = split(large, 4096)
    sound = wire.encode(make_update(sequence=2))
    packets = [(update_topic(), p) for p in [*chunks[:-1], chunks[-1], sound]]
    (receipt,) = asyncio.run(scene.play(packets))
    assert receipt.sequence == 2
    assert scene.gateway.assembler.held_bytes == 0
    assert scene.gateway.assembler.drops == {"damaged": len(chunks)}


def test_a_larger_frame_in_one_packet_is_answered(tmp_path, make_update):
    scene = Scene(tmp_path, accept, max_frame_bytes=40_000)
    large = wire.encode(make_update(body=bytes(50_000)))
    (receipt,) = asyncio.run(scene.play([(update_topic(), large)]))
    assert (receipt.reason, "expected at most 40000" in receipt.detail) == ("format", True)


def test_the_bound_is_near_the_largest_body():
    """38,794 values: 155,177 bytes of float32, 165,520 of sums for ten classes, and 4,096 around them."""
    shapes = {"head.weight": (10, 192), "head.bias": (10,), "lora": (36_864,)}
    layout = Layout(tuple(sorted(shapes.items())))
    assert layout.size == 38_794
    assert 165_000 < max_frame_bytes(layout) < 175_000


def test_as_many_bytes_as_are_allowed_are_under_way_at_a_time(tmp_path, make_update):
    """Frames of 10 KB and room for 25: two at a time, though three would be allowed by number."""
    under_way, most = 0, 0

    async def slow(update, size):
        nonlocal under_way, most
        under_way += size
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= size
        return Outcome("accepted", 0)

    scene = Scene(tmp_path, slow, max_in_flight_bytes=25_000)
    frames = [wire.encode(make_update(sequence=n, body=bytes(10_000))) for n in range(8)]
    frames.append(wire.encode(make_update(sequence=8, body=bytes(30_000))))  # alone it may
    receipts = asyncio.run(scene.play([(update_topic(), f) for f in frames], wait_s=0.3))
    assert len(receipts) == 9
    assert 20_000 < most < 31_000


def test_who_sends_too_much_is_not_read_and_others_are(tmp_path, make_update):
    """A burst of 10: of 30 updates of v1 ten are read; v2's is, which came after them."""
    scene = Scene(tmp_path, accept, limits=Limits(updates_per_s=0.001, burst=10))
    packets = [(update_topic(), wire.encode(make_update(sequence=n))) for n in range(30)]
    other = wire.encode(make_update(vehicle="v2"))
    packets.append((update_topic("v2"), other))
    receipts = asyncio.run(scene.play(packets))
    assert [r.sequence for r in receipts] == list(range(10))
    assert len(scene.journal.rows(0, 99)) == 11
    assert scene.gateway.limits is not None
    assert scene.gateway.limits.num_passed_over == 20
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_beyond_the_limit_of_all_the_gateway_reads_later_and_loses_nothing(tmp_path, make_update):
    """100 a second, one second's worth at once: 110 take a tenth of a second more."""
    scene = Scene(tmp_path, accept, limits=Limits(total_updates_per_s=100))
    frames = [wire.encode(make_update(sequence=n)) for n in range(110)]
    receipts = asyncio.run(scene.play([(update_topic(), f) for f in frames], wait_s=0.5))
    assert len(receipts) == 110


TOPICS = [
    topics.receipt(FLEET, "v1"),
    topics.release(FLEET),
    topics.snapshot(FLEET, 0),
    topics.release_slot(FLEET, 2, 0),
]


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("with_key", [True, False], ids=["key", "no key"])
def test_no_packet_ends_an_agent(tmp_path, outbox, topic, with_key):
    """Nested ones of every type, retained where a broker would: the agent goes on, and at each start."""
    signer(9).write_public("server", tmp_path)
    key = OneKey(FLEET, tmp_path / "server.pub") if with_key else None
    by = signer(9) if with_key else None

    async def scene():
        broker = memory.Broker()
        async with broker.connect("stranger") as stranger:
            retain = topic != TOPICS[0]
            await stranger.publish(topic, nested(MESSAGES[0], 11), retain=retain)
            for _ in range(2):
                async with running(broker, outbox, server_key=key) as (agent, server, uplink):
                    for message in MESSAGES:
                        for frame in nested_everywhere(message, signer=by):
                            await stranger.publish(topic, frame, retain=retain)
                    await asyncio.sleep(0.05)
                    released = server_at(2)
                    await announce(server, released, by=by)
                    await until(lambda: holds(agent, released))  # noqa: B023
                    await next_update(uplink)

    asyncio.run(scene())


class Undated:
    """Frames of a camera whose clock is not set."""

    num_frames = None

    def __init__(self, moment):
        self.moment = moment

    def read(self, count):
        images, labels = np.zeros((count, 16, 16, 3), np.uint8), np.zeros(count, np.int64)
        return Frames(images, labels, self.moment, self.moment)


@pytest.mark.parametrize("moment", [-3600.0, float("nan"), float("inf"), 1e300])
def test_a_vehicle_with_an_odd_clock_sends_what_the_server_takes(outbox, moment):
    async def scene():
        async with running(memory.Broker(), outbox, sensor=Undated(moment)) as (_, server, uplink):
            await announce(server, server_at(0))
            return await next_update(uplink)

    update = asyncio.run(scene())
    assert 0 <= update.captured_from <= update.captured_to <= 2**40


def test_a_refusal_is_settled_and_its_reason_in_the_vehicles_note(outbox):
    """What was learned goes back into the residual: a delta of 1.5 each, from 0 half way to 3."""

    async def scene():
        async with running(memory.Broker(), outbox, max_waiting=1) as (agent, server, uplink):
            await announce(server, server_at(0))
            update = await next_update(uplink)
            agent.config = agent.config.model_copy(update={"max_waiting": 0})
            refusal = Receipt(
                "v1", update.boot, update.sequence, "refused", "format", 0, 0, "too odd"
            )
            await server.publish(topics.receipt("f", "v1"), wire.encode(refusal))
            await until(lambda: not len(outbox))
            return agent.status()

    status = asyncio.run(scene())
    assert status.outcomes == {"refused format": 1}
    assert "the server refuses updates (format): too odd" in status.note
    residual = outbox.residual(VEHICLE_LAYOUT.fingerprint)
    np.testing.assert_allclose(residual, np.full(4, 1.5), rtol=0.01)


def test_a_stored_frame_of_another_format_is_settled_like_any_other(outbox, make_update):
    """It cannot return into the residual, and it must not end the agent."""
    update = replace(make_update(), layout=VEHICLE_LAYOUT.fingerprint, boot="before", sequence=3)
    outbox.put(update, b"FFL\x01" + wire.encode(update)[4:])

    async def scene():
        async with running(memory.Broker(), outbox, max_waiting=1) as (_, server, uplink):
            packet = await asyncio.wait_for(uplink.__anext__(), 2)
            while packet.payload[:4] != b"FFL\x01":
                packet = await asyncio.wait_for(uplink.__anext__(), 2)
            refusal = Receipt("v1", "before", 3, "refused", "format", 0, 0)
            await server.publish(topics.receipt("f", "v1"), wire.encode(refusal))
            await until(lambda: not len(outbox))

    asyncio.run(scene())
    assert outbox.outcomes == {"refused format": 1}


def test_what_a_damaged_outbox_holds_is_left_out(outbox):
    update = Update("v1", "x", 1, 0, VEHICLE_LAYOUT.fingerprint, 1, 1, 0, 0, 0.5, "float32", b"")
    held = CurrentRelease("l", 1, bytes(32), np.ones(4, np.float32))
    outbox.put(update, b"FFL\x02", residual=np.ones(4, np.float32), memory=Memory(3), held=held)
    for content in (b"", b"odd", b"\x91" * 2000, "text", 7, 0.5):
        outbox.db.execute("UPDATE residual SET packed = ?", (content,))
        outbox.db.execute("UPDATE state SET value = ? WHERE name = 'memory'", (content,))
        outbox.db.execute("UPDATE whole SET vector = ?", (content,))
        assert outbox.residual(VEHICLE_LAYOUT.fingerprint) is None
        assert outbox.memory() == Memory()
        assert outbox.held(VEHICLE_LAYOUT) is None
