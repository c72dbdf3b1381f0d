"""Links that are bad without being broken: half-open, and fought over by two clients of one name."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from fleetfl.transport import TransportError
from fleetfl.transport._mqtt_connection import Connection
from fleetfl.transport.mqtt import Config
from sim.chaos.tcp_proxy import Proxy, proxy
from sim.processes.brokers import Broker

pytestmark = pytest.mark.broker


def quick(port: int, **settings: Any) -> Config:
    return Config(port=port, reconnect_min_s=0.05, reconnect_max_s=0.2, **settings)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_a_silent_link_is_given_up_when_a_publish_fails(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """At 3 s of silence, and not at 6 when paho's ping would have gone unanswered."""

    async def scenario(link: Proxy) -> None:
        async with quick(link.port, keepalive_s=3).connect("v") as car:
            await car.publish("up/v", b"1")
            link.set(half_open=True)
            with pytest.raises(TransportError, match="no PUBACK for 1 bytes to 'up/v'"):
                await car.publish("up/v", b"2", timeout_s=3.2)
            link.heal()
            await car.publish("up/v", b"3")

    with caplog.at_level(logging.INFO), proxy(broker.host, broker.port) as link:
        run(scenario(link))
    assert "reason=nothing came for 3 s" in caplog.text


def test_a_link_that_fell_silent_while_nothing_was_said_is_given_up_too(broker: Broker) -> None:
    """By the ping and its missing answer: 2 s each."""

    async def scenario(link: Proxy) -> None:
        async with (
            quick(broker.port).connect("server") as server,
            quick(link.port, keepalive_s=2).connect("v") as car,
            car.subscribe("down/v", qos=0) as packets,
        ):
            link.set(half_open=True)
            while car.is_connected:
                await asyncio.sleep(0.05)
            link.heal()
            await server.publish("down/v", b"news", retain=True)
            assert (await anext(packets)).payload == b"news"

    with proxy(broker.host, broker.port) as link:
        run(scenario(link))


@pytest.mark.parametrize(
    "callback", ["on_connect", "on_publish", "on_subscribe", "on_message", "on_disconnect"]
)
def test_an_exception_in_any_callback_leaves_no_deaf_client(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    """It raises the first time; what was published before is heard after that."""
    original, raised = getattr(Connection, callback), []

    def once(self: Any, *arguments: Any) -> None:
        if not raised:
            raised.append(callback)
            raise RuntimeError("a bug")
        original(self, *arguments)

    monkeypatch.setattr(Connection, callback, once)
    once.__name__ = callback

    async def scenario() -> None:
        config = quick(broker.port)
        async with (
            config.connect("v", clean_session=False) as car,
            car.subscribe("up/#") as packets,
        ):
            await car.publish("up/v", b"before")
            if callback == "on_disconnect":
                await asyncio.to_thread(broker.restart)
            await car.publish("up/v", b"after")
            while (packet := await anext(packets)).payload != b"after":
                packet.ack()
            assert car.is_connected

    run(scenario())
    assert raised == [callback]
    assert f"error in {callback}" in caplog.text


def test_two_clients_of_one_name_are_told_so(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetfl.transport._mqtt_client.MANY_BRIEF", 3)

    async def scenario() -> None:
        config = quick(broker.port)
        async with config.connect("gateway"), config.connect("gateway"):
            while "does another client call itself 'gateway' too?" not in caplog.text:
                await asyncio.sleep(0.05)

    with caplog.at_level(logging.WARNING):
        run(scenario())
