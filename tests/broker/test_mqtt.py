"""The MQTT transport where a dict cannot stand in: kills, outages, refusals and rubbish."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from fleetfl.transport import Packet, PacketRefused, TransportError
from fleetfl.transport.mqtt import Config
from sim.processes.brokers import Broker, mosquitto, nats_server

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
PATIENCE_S = 15.0


def quick(port: int, **settings: Any) -> Config:
    return Config(port=port, reconnect_min_s=0.05, reconnect_max_s=0.2, **settings)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def received(packets: AsyncIterator[Packet]) -> Packet:
    packet = await asyncio.wait_for(packets.__anext__(), PATIENCE_S)
    packet.ack()
    return packet


def child(script: str, broker: Broker) -> "subprocess.Popen[str]":
    """A client in a process of its own, ready (it printed a line) when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(broker.port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)


def test_killed_consumer_gets_the_unacknowledged_packets_again(broker: Broker) -> None:
    """10 published, 3 acknowledged, SIGKILL: its successor gets the other 7."""

    async def publish_ten() -> None:
        async with quick(broker.port).connect("v") as car:
            for number in range(10):
                await car.publish("up/v", bytes([number]))

    async def take_the_rest() -> None:
        async with (
            quick(broker.port).connect("server", clean_session=False) as server,
            server.subscribe("up/#") as packets,
        ):
            rest = {(await received(packets)).payload[0] for _ in range(7)}
        assert rest == set(range(3, 10))

    script = """
        import asyncio, sys
        from fleetfl.transport.mqtt import Config

        async def main():
            async with Config(port=int(sys.argv[1])).connect("server", clean_session=False) as me:
                async with me.subscribe("up/#") as packets:
                    print("ready", flush=True)
                    for _ in range(3):
                        (await packets.__anext__()).ack()
                    await asyncio.sleep(0.3)
                    print("acknowledged", flush=True)
                    await asyncio.sleep(60)

        asyncio.run(main())
    """
    consumer = child(script, broker)
    asyncio.run(publish_ten())
    assert consumer.stdout is not None
    assert consumer.stdout.readline() == "acknowledged\n"
    kill(consumer)
    run(take_the_rest())


def test_killed_client_leaves_its_will(broker: Broker) -> None:
    script = """
        import asyncio, sys
        from fleetfl.transport import Will
        from fleetfl.transport.mqtt import Config

        async def main():
            will = Will("status/v", b"offline")
            async with Config(port=int(sys.argv[1])).connect("v", will=will):
                print("ready", flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """

    async def scenario() -> None:
        async with (
            quick(broker.port).connect("server") as server,
            server.subscribe("status/#") as packets,
        ):
            kill(child(script, broker))
            assert await received(packets) == Packet("status/v", b"offline")

    run(scenario())


def test_client_goes_on_after_the_broker_was_killed(broker: Broker) -> None:
    async def scenario() -> None:
        config = quick(broker.port)
        async with (
            config.connect("server") as server,
            config.connect("v") as car,
            server.subscribe("up/#") as packets,
        ):
            await car.publish("up/v", b"before")
            assert (await received(packets)).payload == b"before"
            broker.kill()
            meanwhile = asyncio.create_task(car.publish("up/v", b"meanwhile"))
            await asyncio.sleep(0.3)
            assert not server.is_connected
            assert not meanwhile.done()
            await asyncio.to_thread(broker.restart)
            await meanwhile
            # "meanwhile" may have come before the other client had subscribed again.
            await asyncio.sleep(1.0)
            assert server.is_connected
            await car.publish("up/v", b"after")
            while (await received(packets)).payload != b"after":
                pass

    run(scenario())


def test_newest_retained_packet_comes_again_after_each_reconnect(broker: Broker) -> None:
    """With QoS 0, so that a session has nothing else waiting for it."""

    async def scenario() -> None:
        async with (
            quick(broker.port).connect("server") as server,
            quick(broker.port).connect("v", clean_session=False) as car,
            car.subscribe("down/release", qos=0) as packets,
        ):
            await server.publish("down/release", b"0", retain=True)
            assert (await received(packets)).payload == b"0"
            for number in (b"1", b"2"):
                await server.publish("down/release", number, retain=True)
                assert (await received(packets)).payload == number
                await asyncio.to_thread(broker.restart)
                assert await received(packets) == Packet("down/release", number, retained=True)

    run(scenario())


def test_packet_that_waits_for_its_ack_is_not_repeated(nats: Broker) -> None:
    """NATS repeats after a second what is not acknowledged; a reader may take longer."""

    async def scenario() -> None:
        async with quick(nats.port).connect("s") as server, server.subscribe("up/#") as packets:
            await server.publish("up/v", b"slow")
            slow = await asyncio.wait_for(packets.__anext__(), PATIENCE_S)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(packets.__anext__(), 2.5)
            slow.ack()
            slow.ack()
            await server.publish("up/v", b"next")
            assert (await received(packets)).payload == b"next"

    run(scenario())


def test_packets_too_many_stay_with_the_broker(broker: Broker) -> None:
    """30 published, room for 10: the other 20 come once there is room again."""

    async def scenario() -> None:
        config = quick(broker.port, max_queued=10)
        async with (
            quick(broker.port).connect("v") as car,
            config.connect("server", clean_session=False) as server,
            server.subscribe("up/#") as packets,
        ):
            for number in range(30):
                await car.publish("up/v", bytes([number]))
            await asyncio.sleep(0.3)
            seen: set[int] = set()
            while len(seen) < 30:
                seen.add((await received(packets)).payload[0])

    run(scenario())


def test_unreachable_broker_is_named_within_patience() -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(TransportError, match=rf"127\.0\.0\.1:{port} within 0\.5 s"):
            async with quick(port).connect("v", patience_s=0.5):
                pass

    began_s = time.monotonic()
    with socket.socket() as deaf:  # bound, so that nobody else takes the port, but not listening
        deaf.bind(("127.0.0.1", 0))
        run(scenario(deaf.getsockname()[1]))
    assert time.monotonic() - began_s < 5.0


def test_silent_broker_is_given_up_within_patience(rude_broker: Any) -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(TransportError, match="no answer yet"):
            async with quick(port).connect("v", patience_s=0.5):
                pass

    began_s = time.monotonic()
    rude_broker.is_silent = True
    run(scenario(rude_broker.server_address[1]))
    assert time.monotonic() - began_s < 5.0


def test_wrong_password_and_forbidden_topic_are_named(tmp_path: Path) -> None:
    users = """
        authorization {
          users: [{
            user: "v"
            password: "secret"
            permissions: {
              publish: ">"
              subscribe: {
                deny: ["private", "private.>"]
              }
            }
          }]
        }
    """

    async def scenario(port: int) -> None:
        wrong = quick(port, username="v", password="wrong")
        with pytest.raises(TransportError, match=r"attempts, the last: (?!no answer)"):
            async with wrong.connect("v", patience_s=0.5):
                pass
        right = quick(port, username="v", password="secret")
        async with right.connect("v") as car:
            with pytest.raises(TransportError, match="private/#"):
                async with car.subscribe("private/#"):
                    pass
            async with car.subscribe("public") as packets:
                await car.publish("public", b"1")
                assert (await received(packets)).payload == b"1"

    with nats_server(tmp_path / "nats", extra_config=users) as broker:
        run(scenario(broker.port))


def test_packet_the_broker_hangs_up_on_is_not_sent_for_ever(rude_broker: Any) -> None:
    async def scenario(port: int) -> None:
        async with quick(port).connect("v") as car:
            with pytest.raises(PacketRefused, match=r"broke 3 times while 7 bytes to 'up/v'"):
                await car.publish("up/v", b"poison!")

    run(scenario(rude_broker.server_address[1]))
    assert rude_broker.num_publishes == 3


def test_packet_above_the_brokers_limit_spares_those_beside_it(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        config = quick(port, max_payload_bytes=1_000_000)
        async with config.connect("v") as car, car.subscribe("up/#") as packets:
            outcomes = await asyncio.gather(
                car.publish("up/v", bytes(500_000)),
                *(car.publish("up/v", bytes([n])) for n in range(8)),
                return_exceptions=True,
            )
            assert isinstance(outcomes[0], PacketRefused)
            assert outcomes[1:] == [None] * 8
            seen: set[bytes] = set()
            while len(seen) < 8:
                seen.add((await received(packets)).payload)

    with nats_server(tmp_path / "nats", max_payload_bytes=100_000) as broker:
        run(scenario(broker.port))


def test_error_in_a_callback_does_not_deafen(
    rude_broker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    r"""The topic b"\xff" is no UTF-8, so paho raises when we ask for it."""

    async def scenario(port: int) -> None:
        async with quick(port).connect("v") as car, car.subscribe("#") as packets:
            assert (await received(packets)).topic == "fine"

    rude_broker.topics_to_send = (b"\xff", b"fine")
    with caplog.at_level(logging.ERROR):
        run(scenario(rude_broker.server_address[1]))
    assert "error in on_message" in caplog.text


def test_silence_of_the_broker_fails_a_publish_in_time(broker: Broker) -> None:
    async def scenario() -> None:
        async with quick(broker.port).connect("v") as car:
            broker.kill()
            with pytest.raises(TransportError, match=rf":{broker.port}: no PUBACK for 1 bytes"):
                await car.publish("up/v", b"1", timeout_s=0.3)

    run(scenario())


def test_more_clients_than_select_can_watch_share_one_thread(tmp_path: Path) -> None:
    """paho's own loop ends at 339 clients in a process."""

    async def scenario(port: int) -> None:
        together = asyncio.Event()
        num_connected = 0

        async def one(number: int) -> None:
            nonlocal num_connected
            async with quick(port).connect(f"v{number}") as car:
                num_connected += 1
                if num_connected == 400:
                    together.set()
                await together.wait()
                await car.publish(f"up/v{number}", b"1")

        async with quick(port).connect("s") as server, server.subscribe("up/#") as packets:
            cars = [asyncio.create_task(one(number)) for number in range(400)]
            topics = {(await received(packets)).topic for _ in range(400)}
            assert len(topics) == 400
            names = [thread.name for thread in threading.enumerate()]
            assert names.count("fleetfl-network") == 1
            await asyncio.gather(*cars)

    with mosquitto(tmp_path / "mosquitto") as broker:
        run(scenario(broker.port))
    assert "fleetfl-network" not in [thread.name for thread in threading.enumerate()]


def test_forgotten_subscription_of_a_session_does_not_block_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosquitto's window, here 10, is one for all filters: 20 packets nobody reads fill it."""
    monkeypatch.setattr("fleetfl.transport._mqtt_client.UNCLAIMED_S", 0.2)

    async def scenario(port: int) -> None:
        config = quick(port)
        async with config.connect("v") as car:
            async with (
                config.connect("server", clean_session=False) as server,
                server.subscribe("old"),
            ):
                pass
            for _ in range(20):
                await car.publish("old", b"")
            async with (
                config.connect("server", clean_session=False) as server,
                server.subscribe("new") as packets,
            ):
                await car.publish("new", b"1")
                assert (await received(packets)).topic == "new"

    with mosquitto(tmp_path / "mosquitto", max_unacknowledged=10) as broker:
        run(scenario(broker.port))
