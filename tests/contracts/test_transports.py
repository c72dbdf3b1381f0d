"""What every transport promises: the same tests on the dict and on two real brokers."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fleetfl.transport import Packet, Transport, TransportConfig, TransportError, Will, memory, mqtt
from sim.processes.brokers import Broker, mosquitto, nats_server

PATIENCE_S = 10.0
Start = Callable[[Path], AbstractContextManager[Broker]]
quick_nats = functools.partial(nats_server, redeliver_after_s=1)


@pytest.fixture(
    params=[
        pytest.param(None, id="memory", marks=pytest.mark.contracts),
        pytest.param(quick_nats, id="nats", marks=pytest.mark.broker),
        pytest.param(mosquitto, id="mosquitto", marks=pytest.mark.broker),
    ]
)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TransportConfig]:
    start: Start | None = request.param
    if start is None:
        yield memory.Config(name=str(tmp_path), max_payload_bytes=100_000)
        return
    with start(tmp_path / "broker") as broker:
        yield mqtt.Config(port=broker.port, max_payload_bytes=100_000)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def received(packets: AsyncIterator[Packet]) -> Packet:
    """The next packet, acknowledged."""
    packet = await asyncio.wait_for(packets.__anext__(), PATIENCE_S)
    packet.ack()
    return packet


async def payloads(packets: AsyncIterator[Packet], num: int) -> list[bytes]:
    return [(await received(packets)).payload for _ in range(num)]


def test_packet_reaches_the_subscriber_of_its_filter(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("server") as server, network.connect("car") as car:
            assert server.is_connected
            async with server.subscribe("up/+/update") as packets:
                await car.publish("up/v1/status", b"no")
                await car.publish("up/v1/update", b"yes")
                assert await received(packets) == Packet("up/v1/update", b"yes", retained=False)

    run(scenario())


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/b", ["a/b"]),
        ("a/+", ["a/b", "a/c"]),
        ("a/#", ["a", "a/b", "a/b/c", "a/c"]),
        ("+/b/#", ["a/b", "a/b/c"]),
        ("+", ["a", "b"]),
        ("#", ["a", "a/b", "a/b/c", "a/c", "b"]),
    ],
)
def test_filters_mean_the_same_everywhere(
    network: TransportConfig, topic_filter: str, expected: list[str]
) -> None:
    """Sorted, since NATS serves a/# by two queues and `a/b` may overtake `a`."""

    async def scenario() -> None:
        async with network.connect("c") as client, client.subscribe(topic_filter) as packets:
            for topic in ("a", "a/b", "a/b/c", "a/c", "b"):
                await client.publish(topic, b"")
            topics = [(await received(packets)).topic for _ in expected]
            assert sorted(topics) == expected
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(packets.__anext__(), 0.05)

    run(scenario())


def test_packets_of_one_publisher_stay_in_order(network: TransportConfig) -> None:
    async def scenario() -> None:
        numbers = [str(n).encode() for n in range(200)]
        async with (
            network.connect("s") as server,
            network.connect("v") as car,
            server.subscribe("up/#") as packets,
        ):
            await asyncio.gather(*(car.publish("up/v", number) for number in numbers))
            assert await payloads(packets, len(numbers)) == numbers

    run(scenario())


def test_latecomer_gets_the_newest_retained_packet_alone(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("server") as server:
            await server.publish("down/release", b"1", retain=True)
            await server.publish("down/release", b"2", retain=True)
            async with network.connect("late") as car, car.subscribe("down/#") as packets:
                assert await received(packets) == Packet("down/release", b"2", retained=True)
                await server.publish("down/release", b"3", retain=True)
                assert await received(packets) == Packet("down/release", b"3", retained=False)

    run(scenario())


def test_empty_retained_packet_clears_its_topic(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("server") as server:
            await server.publish("down/policy", b"old", retain=True)
            async with server.subscribe("down/#") as packets:
                assert (await received(packets)).topic == "down/policy"
            await server.publish("down/policy", b"", retain=True)
            await server.publish("down/release", b"1", retain=True)
            seen = set()
            for _ in range(20):  # a busy NATS acknowledges before all of it can be seen
                async with server.subscribe("down/#") as packets:
                    seen = {(await received(packets)).topic}
                if seen == {"down/release"}:
                    break
                await asyncio.sleep(0.1)
            assert seen == {"down/release"}

    run(scenario())


def test_session_gets_again_what_it_did_not_acknowledge(network: TransportConfig) -> None:
    """Once at least: NATS may repeat what was acknowledged right before a goodbye (1 in 60)."""

    async def scenario() -> None:
        async with network.connect("v") as car:
            async with (
                network.connect("server", clean_session=False) as server,
                server.subscribe("up/#") as packets,
            ):
                for payload in (b"1", b"2", b"3"):
                    await car.publish("up/v", payload)
                first = await received(packets)
                assert first.payload == b"1"
                await packets.__anext__()  # taken, never acknowledged; the third never taken
            async with (
                network.connect("server", clean_session=False) as server,
                server.subscribe("up/#") as packets,
            ):
                missing = {b"2", b"3"}
                while missing:
                    missing.discard((await received(packets)).payload)
                first.ack()  # of an earlier connection: must not count for another packet

    run(scenario())


def test_session_gets_what_was_published_while_it_was_away(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("v") as car:
            async with (
                network.connect("server", clean_session=False) as server,
                server.subscribe("up/#"),
            ):
                pass
            for number in range(50):
                await car.publish("up/v", bytes([number]))
            async with (
                network.connect("server", clean_session=False) as server,
                server.subscribe("up/#") as packets,
            ):
                # A NATS server on a busy machine may begin with the second of them.
                assert sorted(await payloads(packets, 50)) == [bytes([n]) for n in range(50)]

    run(scenario())


def test_clean_session_starts_with_nothing(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("v") as car:
            async with network.connect("server") as server, server.subscribe("up/#"):
                await car.publish("up/v", b"unacknowledged")
            async with network.connect("server") as server, server.subscribe("up/#") as packets:
                await car.publish("up/v", b"new")
                assert (await received(packets)).payload == b"new"

    run(scenario())


def test_will_is_published_for_the_lost_and_not_for_the_leaving(network: TransportConfig) -> None:
    async def leave(client_id: str, *, by: type[Exception] | None) -> None:
        will = Will(f"status/{client_id}", b"offline")
        async with network.connect(client_id, will=will):
            if by is not None:
                raise by

    async def scenario() -> None:
        async with network.connect("server") as server:
            async with server.subscribe("status/#") as packets:
                await leave("leaving", by=None)
                with pytest.raises(KeyError):
                    await leave("lost", by=KeyError)
                assert await received(packets) == Packet("status/lost", b"offline")
            async with server.subscribe("status/#") as packets:
                assert await received(packets) == Packet("status/lost", b"offline", retained=True)

    run(scenario())


def test_what_can_never_be_sent_is_refused(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("v") as car:
            with pytest.raises(ValueError, match=r"100001 bytes.*max_payload_bytes is 100000"):
                await car.publish("up/v", bytes(100_001))
            with pytest.raises(ValueError, match="up/\\+"):
                await car.publish("up/+", b"")
            with pytest.raises(ValueError, match="up/#/x"):
                async with car.subscribe("up/#/x"):
                    pass
            async with car.subscribe("up/v") as packets:
                await car.publish("up/v", bytes(100_000))
                assert len((await received(packets)).payload) == 100_000

    run(scenario())


def test_two_subscriptions_of_one_client_each_get_the_packet(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with (
            network.connect("s") as server,
            server.subscribe("up/#") as all_up,
            server.subscribe("up/v1") as of_v1,
        ):
            await server.publish("up/v1", b"1")
            assert (await received(of_v1)).payload == b"1"
            assert (await received(all_up)).payload == b"1"

    run(scenario())


def test_given_up_wait_leaves_the_subscription_usable(network: TransportConfig) -> None:
    async def scenario() -> None:
        async with network.connect("s") as server, server.subscribe("up/#") as packets:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(packets.__anext__(), 0.05)
            await server.publish("up/v", b"1")
            assert (await received(packets)).payload == b"1"

    run(scenario())


def test_left_subscription_does_not_hold_up_the_others(network: TransportConfig) -> None:
    """250 unread packets are more than the 100 unacknowledged ones that the brokers allow."""

    async def scenario() -> None:
        async with (
            network.connect("s") as server,
            network.connect("v") as car,
            server.subscribe("kept") as kept,
        ):
            for _ in range(5):
                async with server.subscribe("left"):
                    for _ in range(50):
                        await car.publish("left", b"")
            await car.publish("kept", b"1")
            assert (await received(kept)).payload == b"1"

    run(scenario())


def test_iteration_stops_when_the_connection_is_left(network: TransportConfig) -> None:
    async def drained(server: Transport, subscribed: asyncio.Event) -> int:
        async with server.subscribe("up/#") as packets:
            subscribed.set()
            return len([packet async for packet in packets])

    async def scenario() -> None:
        subscribed = asyncio.Event()
        async with network.connect("s") as server:
            reading = asyncio.create_task(drained(server, subscribed))
            await asyncio.wait_for(subscribed.wait(), PATIENCE_S)
        assert await asyncio.wait_for(reading, PATIENCE_S) == 0
        assert not server.is_connected
        with pytest.raises(TransportError):
            await server.publish("up/v", b"")

    run(scenario())


def test_qos_0_keeps_nothing_for_a_session_that_is_away(network: TransportConfig) -> None:
    """But the newest retained packet is there when it comes back, and then what is new."""

    async def scenario() -> None:
        async with network.connect("server") as server:
            async with (
                network.connect("v", clean_session=False) as car,
                car.subscribe("down/release", qos=0) as packets,
            ):
                await server.publish("down/release", b"0", retain=True)
                assert (await received(packets)).payload == b"0"
            for number in range(1, 50):
                await server.publish("down/release", str(number).encode(), retain=True)
            async with (
                network.connect("v", clean_session=False) as car,
                car.subscribe("down/release", qos=0) as packets,
            ):
                assert await received(packets) == Packet("down/release", b"49", retained=True)
                await server.publish("down/release", b"new", retain=True)
                assert await received(packets) == Packet("down/release", b"new")

    run(scenario())


def test_left_qos_0_subscription_of_a_session_ends(network: TransportConfig) -> None:
    """Its packets would cost the link for nothing."""

    async def scenario() -> None:
        async with (
            network.connect("server") as server,
            network.connect("v", clean_session=False) as car,
            car.subscribe("other", qos=0) as other,
        ):
            for number in range(3):
                await server.publish("snapshot/0", bytes([number]), retain=True)
                async with car.subscribe("snapshot/+", qos=0) as packets:
                    assert (await received(packets)).payload == bytes([number])
            await server.publish("snapshot/0", b"unwanted", retain=True)
            await server.publish("other", b"1")
            assert (await received(other)).payload == b"1"
            async with car.subscribe("#") as packets:
                assert await received(packets) == Packet("snapshot/0", b"unwanted", retained=True)

    run(scenario())


def test_subscriptions_of_both_qos_to_one_filter_each_get_the_packet(
    network: TransportConfig,
) -> None:
    async def scenario() -> None:
        async with (
            network.connect("s") as server,
            server.subscribe("up/v1") as surely,
            server.subscribe("up/v1", qos=0) as perhaps,
        ):
            await server.publish("up/v1", b"1")
            assert (await received(perhaps)).payload == b"1"
            assert (await received(surely)).payload == b"1"

    run(scenario())
