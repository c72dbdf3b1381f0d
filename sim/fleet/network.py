"""A vehicle's transport over its simulated link: the memory broker, and what bytes cost."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fleetfl.transport import Packet, QoS, Transport, TransportError, mqtt_publish_bytes
from sim.fleet.links import Link


@dataclass(slots=True)
class Meter:
    """What a vehicle has spent so far."""

    bytes_up: int = 0
    """With MQTT's header."""
    bytes_down: int = 0
    radio_joules: float = 0.0
    training_joules: float = 0.0
    training_s: float = 0.0


class LinkedTransport:
    """A Transport. Transfers do not slow each other down; what no trace lets through in time is an error."""

    def __init__(self, client: Transport, link: Link, meter: Meter) -> None:
        self.client, self.link, self.meter = client, link, meter
        self.num_published = 0
        self.late: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        return self.client.is_connected

    @property
    def max_payload_bytes(self) -> int:
        return self.client.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0
    ) -> None:
        size = mqtt_publish_bytes(topic, len(payload))
        seconds = self._seconds(size, up=True, at_most=timeout_s)
        await asyncio.sleep(min(seconds, timeout_s))
        if seconds > timeout_s:
            raise TransportError(f"{topic!r}: no way through within {timeout_s:g} s")
        self.meter.bytes_up += size
        for delay_s in self.link.arrivals(self.num_published):
            if delay_s:
                asyncio.get_running_loop().call_later(delay_s, self._late, topic, payload, retain)
            else:
                await self.client.publish(topic, payload, retain=retain, timeout_s=timeout_s)
        self.num_published += 1

    def _late(self, topic: str, payload: bytes, retain: bool) -> None:
        task = asyncio.create_task(self._publish_late(topic, payload, retain), name="link.late")
        self.late.add(task)
        task.add_done_callback(self.late.discard)

    async def _publish_late(self, topic: str, payload: bytes, retain: bool) -> None:
        with contextlib.suppress(TransportError):  # switched off meanwhile: lost
            await self.client.publish(topic, payload, retain=retain)

    @asynccontextmanager
    async def subscribe(
        self, topic_filter: str, *, qos: QoS = 1
    ) -> AsyncIterator[AsyncIterator[Packet]]:
        async with self.client.subscribe(topic_filter, qos=qos) as packets:
            yield _Arriving(packets, self)

    async def arrival(self, packet: Packet) -> None:
        size = mqtt_publish_bytes(packet.topic, len(packet.payload))
        await asyncio.sleep(self._seconds(size, up=False))
        self.meter.bytes_down += size

    def _seconds(self, size: int, *, up: bool, at_most: float = math.inf) -> float:
        seconds = self.link.seconds(asyncio.get_running_loop().time(), size, up=up)
        self.meter.radio_joules += self.link.config.watts * min(seconds, at_most)
        return seconds


class _Arriving:
    """Packets one after the other. One whose `anext` was cancelled on its way arrives with the next."""

    def __init__(self, packets: AsyncIterator[Packet], transport: LinkedTransport) -> None:
        self.packets, self.transport = packets, transport
        self.on_its_way: Packet | None = None

    def __aiter__(self) -> "_Arriving":
        return self

    async def __anext__(self) -> Packet:
        if self.on_its_way is None:
            self.on_its_way = await anext(self.packets)
        await self.transport.arrival(self.on_its_way)
        packet, self.on_its_way = self.on_its_way, None
        return packet
