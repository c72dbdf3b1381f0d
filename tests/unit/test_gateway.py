"""The gateway on the memory broker: judged, answered, acknowledged, and never more than it can take."""

import asyncio

import pytest

from actors.gateway import Gateway
from fleetfl import topics, wire
from fleetfl.coordinator import Outcome, Refusal
from fleetfl.messages import Receipt, Release, Status
from fleetfl.telemetry import EventLog, EventReader
from fleetfl.transport import memory

pytestmark = pytest.mark.unit
FLEET = "f"


class Scene:
    """A gateway, a vehicle's link, and what `submit` is to answer."""

    def __init__(self, tmp_path, submit):
        self.broker, self.submit = memory.Broker(), submit
        self.path = tmp_path / "events.jsonl"

    async def play(self, packets, *, max_in_flight=3, wait_s=0.05):
        """Publish (topic, frame) pairs; gives the receipts of v1."""
        never = asyncio.Event()

        async def newer(than):
            if than < 0:
                return Release(0, "l", "float32", "s", b"")
            await never.wait()
            raise AssertionError

        async with (
            self.broker.connect("gateway", clean_session=False) as link,
            self.broker.connect("v1") as vehicle,
            vehicle.subscribe(topics.receipt(FLEET, "v1")) as receipts,
        ):
            events = EventLog(self.path)
            gateway = Gateway(
                FLEET,
                0,
                transport=link,
                submit=self.submit,
                newer=newer,
                events=events,
                max_in_flight=max_in_flight,
            )
            task = asyncio.create_task(gateway.run())
            await asyncio.sleep(0.02)
            for topic, frame in packets:
                await vehicle.publish(topic, frame)
            await asyncio.sleep(wait_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            events.close()
            got = []
            while True:
                try:
                    packet = await asyncio.wait_for(receipts.__anext__(), 0.02)
                except asyncio.TimeoutError:
                    return got
                packet.ack()
                got.append(wire.decode(packet.payload))

    def events(self, kind):
        return [e for e in EventReader(self.path).read() if e["event"] == kind]


def update_topic(vehicle="v1"):
    return topics.update(FLEET, vehicle, 1)


def test_outcomes_become_receipts(tmp_path, make_update):
    async def submit(update, size):
        assert size == len(wire.encode(update))
        if update.sequence == 1:
            return Outcome("refused", 5, 9, Refusal.STALE, "9 versions late")
        return Outcome("accepted", 5, 2)

    scene = Scene(tmp_path, submit)
    packets = [(update_topic(), wire.encode(make_update(sequence=n))) for n in range(2)]
    receipts = asyncio.run(scene.play(packets))
    assert receipts == [
        Receipt("v1", "b", 0, "accepted", "", 2, 5),
        Receipt("v1", "b", 1, "refused", "stale", 9, 5),
    ]
    assert scene.broker.num_unacknowledged("gateway") == 0
    assert scene.events("announced")[0]["version"] == 0


def test_noise_is_counted_acknowledged_and_not_judged(tmp_path, make_update):
    async def submit(update, size):
        raise AssertionError("noise was judged")

    stranger = wire.encode(make_update(vehicle="v2"))
    status = wire.encode(Status("v1", "b", "online", 0, 0, 0, 0, ""))
    scene = Scene(tmp_path, submit)
    frames = [b"junk", b"", stranger, status]
    assert asyncio.run(scene.play([(update_topic(), f) for f in frames])) == []
    details = [e["detail"] for e in scene.events("noise")]
    assert len(details) == 4
    assert "'v2' on the topic of 'v1'" in details[2]
    assert "a Status on a topic for update" in details[3]
    assert scene.broker.num_unacknowledged("gateway") == 0


def test_statuses_become_events(tmp_path):
    scene = Scene(tmp_path, None)
    frame = wire.encode(Status("v1", "b", "online", 3, 10, 20, 1, "cold"))
    asyncio.run(scene.play([(topics.status(FLEET, "v1", 1), frame)]))
    (event,) = scene.events("online")
    assert (event["version"], event["bytes_down"], event["note"]) == (3, 20, "cold")


def test_reads_no_further_than_it_may_have_in_flight(tmp_path, make_update):
    running, most = 0, 0

    async def slow(update, size):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return Outcome("accepted", 0)

    scene = Scene(tmp_path, slow)
    packets = [(update_topic(), wire.encode(make_update(sequence=n))) for n in range(20)]
    receipts = asyncio.run(scene.play(packets, max_in_flight=3, wait_s=0.5))
    assert len(receipts) == 20
    assert most == 3


def test_what_was_not_judged_is_not_acknowledged(tmp_path, make_update, caplog):
    async def broken(update, size):
        raise ConnectionResetError("the aggregator is gone")

    scene = Scene(tmp_path, broken)
    assert asyncio.run(scene.play([(update_topic(), wire.encode(make_update()))])) == []
    assert scene.broker.num_unacknowledged("gateway") == 1
    assert "the aggregator is gone" in caplog.text
