"""What a publish weighs, counted on the socket of a real broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fleetfl.transport import mqtt_publish_bytes
from fleetfl.transport.mqtt import Config
from sim.processes.brokers import Broker

pytestmark = pytest.mark.broker


class Relay:
    """Between a client and its broker: counts what the client sends."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.num_bytes_up = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Gives its port."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(self.broker.host, self.broker.port)
        down = asyncio.create_task(self.pump(from_broker, writer))
        while data := await reader.read(65_536):
            self.num_bytes_up += len(data)
            to_broker.write(data)
            await to_broker.drain()
        to_broker.close()
        await down

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize("payload_bytes", [0, 83, 84, 16_339, 16_340, 300_000])
def test_a_publish_weighs_what_is_said(nats: Broker, payload_bytes: int) -> None:
    """With a topic of 40 bytes, 2 + 40 + 2 + payload passes 127 at 84 and 16,383 at 16,340."""
    topic = "fleetfl/1/depot-7/up/0/drone-0001/update"

    async def scene() -> int:
        relay = Relay(nats)
        async with (
            relay.listening() as port,
            Config(port=port, max_payload_bytes=2**20).connect("counted") as transport,
        ):
            await transport.publish(topic, b"first")  # whatever comes before it has been sent
            before = relay.num_bytes_up
            await transport.publish(topic, bytes(payload_bytes))
            return relay.num_bytes_up - before

    assert len(topic) == 40
    assert asyncio.run(asyncio.wait_for(scene(), 30)) == mqtt_publish_bytes(topic, payload_bytes)
