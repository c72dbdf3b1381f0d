"""What the broker has to retain: published, looked after, and published again where it was lost."""

import asyncio
import contextlib

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.announcer import Announcer
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.events.event_log import EventLog, EventReader
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import Assembler
from fleetfl.protocol.messages import Release, Snapshot
from fleetfl.protocol.signing import Signer
from fleetfl.releases.generations import BEFORE_ALL, LAST_NUMBER, order_of
from fleetfl.releases.versions import Published
from fleetfl.transport import memory
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (200,)),))


@contextlib.asynccontextmanager
async def announcing(broker, tmp_path, version):
    published = Published(np.zeros(200, np.float32), LAYOUT, Int8(), generation="one")
    for number in range(version):
        published.advance(np.full(200, number + 1, np.float32))

    async def announcement(than):
        while order_of(published) <= than:
            await asyncio.sleep(0.01)
        return published.whole(), published.later_than(than)

    async with broker.connect("gateway", max_payload_bytes=400) as link:
        announcer = Announcer(
            "f",
            transport=link,
            announcement=announcement,
            events=EventLog(tmp_path / "events.jsonl"),
            look_s=0.02,
        )
        task = asyncio.create_task(announcer.run())
        try:
            yield published
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def on(broker):
    """What a vehicle that comes now would be told: version of the news, and of the snapshot."""
    assembler, versions = Assembler(max_open_per_sender=16), {}
    for payload in broker.retained.values():
        frame = assembler.add("server", payload, 0.0)
        message = frame and wire.decode(frame)
        if isinstance(message, Release | Snapshot):
            versions[type(message)] = max(message.version, versions.get(type(message), -1))
    return versions.get(Release), versions.get(Snapshot)


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("never came true")


@pytest.mark.parametrize("what", ["all", "news", "snapshot"])
def test_what_the_broker_lost_is_retained_again(tmp_path, monkeypatch, what):
    monkeypatch.setattr("actors.retained_publisher.PATIENCE_S", 0.05)

    async def scene():
        broker = memory.Broker()
        async with announcing(broker, tmp_path, version=3) as published:
            await until(lambda: on(broker) == (3, 3))
            gone = {"news": topics.release("f"), "snapshot": topics.snapshot("f", 0)}
            for topic in list(broker.retained) if what == "all" else [gone[what]]:
                broker.retained.clear_topic(topic)
            await until(lambda: on(broker) == (3, 3) and len(broker.retained) > 4)
            published.advance(np.full(200, 9, np.float32))
            await until(lambda: on(broker) == (4, 4))

    asyncio.run(scene())
    events = EventReader(tmp_path / "events.jsonl").read()
    assert [e["event"] for e in events].count("retained_lost") == 1


def test_what_is_there_is_not_published_again(tmp_path):
    async def scene():
        broker = memory.Broker()
        async with announcing(broker, tmp_path, version=2), broker.connect("v") as link:
            await until(lambda: on(broker) == (2, 2))
            async with link.subscribe("fleetfl/1/f/down/#", qos=0) as packets:
                await asyncio.sleep(0.3)
                seen = []
                with contextlib.suppress(asyncio.TimeoutError):
                    while True:
                        seen.append(await asyncio.wait_for(anext(packets), 0.1))
        assert all(packet.retained for packet in seen)

    asyncio.run(scene())


SIGNER = Signer("f", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1"))
STRANGER = Signer("f", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\2"))


def said_before(generation, version, signer=SIGNER):
    published = Published(np.zeros(200, np.float32), LAYOUT, Int8(), generation=generation)
    snapshot = msgspec.structs.replace(published.whole(), version=version)
    return snapshot, wire.encode(snapshot, signer)


def announcer_at(link, announcement, tmp_path):
    return Announcer(
        "f",
        transport=link,
        announcement=announcement,
        events=EventLog(tmp_path / "events.jsonl"),
        signer=SIGNER,
    )


def test_what_a_stranger_put_beside_it_does_not_hide_what_was_said_before(tmp_path, monkeypatch):
    monkeypatch.setattr("actors.announcer.FIRST_LOOK_S", 0.2)
    ours, frame = said_before("3-a", 7)

    async def scene():
        broker = memory.Broker()
        async with broker.connect("gateway") as link:
            foreign = said_before("9-b", 9, STRANGER)[1]
            await link.publish(topics.snapshot("f", 1), foreign, retain=True)
            await link.publish(topics.snapshot("f", 0), frame, retain=True)
            return await announcer_at(link, None, tmp_path)._said()

    assert asyncio.run(scene()) == [ours]


def test_the_last_generation_is_not_outranked_for_ever(tmp_path):
    async def scene():
        asked = []

        async def announcement(than):
            asked.append(than)
            return said_before("2-a", 4)[0], []

        async with memory.Broker().connect("gateway") as link:
            announcer = announcer_at(link, announcement, tmp_path)
            await announcer.outrank(said_before(f"{LAST_NUMBER}-z", 0)[0])
            await announcer.outrank(said_before("3-z", 0)[0])
        return asked

    assert asyncio.run(scene()) == [BEFORE_ALL, BEFORE_ALL, (3, 0)]


def test_a_second_server_with_the_same_key_is_told_of(tmp_path):
    """Each begins generation after generation, and refuses half of the updates."""

    async def scene():
        broker, newest = memory.Broker(), {"now": said_before("2-a", 4)[0]}

        async def announcement(than):
            if than >= (3, 0):
                newest["now"] = said_before("4-a", 4)[0]
            while order_of(newest["now"]) <= than:
                await asyncio.sleep(0.01)
            now = newest["now"]
            name = (now.generation, now.version, -1, now.layout, now.sha256)
            return now, [Release(*name, codec="", body=b"")]

        async with broker.connect("gateway") as link:
            announcer = announcer_at(link, announcement, tmp_path)
            await announcer._publish(*await announcement(BEFORE_ALL))
            await announcer._repair()
            assert heard(tmp_path, "another_server") == []
            clone = said_before("3-b", 0)[0]
            name = (clone.generation, clone.version, -1, clone.layout, clone.sha256)
            frame = wire.encode(Release(*name, codec="", body=b""), SIGNER)
            await link.publish(topics.release("f"), frame, retain=True)
            await announcer._repair()
        (told,) = heard(tmp_path, "another_server")
        assert told["generation"] == "3-b"
        assert newest["now"].generation == "4-a"

    asyncio.run(scene())


def heard(tmp_path, name):
    return [e for e in EventReader(tmp_path / "events.jsonl").read() if e["event"] == name]
