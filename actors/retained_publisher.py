"""Publishes retained messages, in chunks if needed, and finds those that the broker lost. Knows no release.

A broker that is killed before it saved forgets retained messages silently, so callers check now and then.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fleetfl.protocol.chunks import Assembler, split
from fleetfl.protocol.wire import WireError
from fleetfl.transport import Transport

_T = TypeVar("_T")
PATIENCE_S = 5.0
"""Seconds to wait for a retained packet; the broker sends one at once if it has it."""


class RetainedPublisher:
    """Publishes retained frames and remembers which ones the broker should have."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.num_chunks: dict[str, int] = {}
        """Number of published chunks, by the topic of the first one."""
        self.watched: dict[str, bytes] = {}
        """Payloads that the broker should have, by topic."""

    async def put(self, topic: Callable[[int], str], frame: bytes) -> None:
        """Publish in chunks on `topic(0)`, `topic(1)`..., and clear further ones. Raises TransportError."""
        chunks = split(frame, self.transport.max_payload_bytes)
        for index, chunk in enumerate(chunks):
            await self.transport.publish(topic(index), chunk, retain=True)
        for index in range(len(chunks), self.num_chunks.get(topic(0), 0)):
            await self.transport.publish(topic(index), b"", retain=True)
        self.num_chunks[topic(0)] = len(chunks)

    async def put_whole(self, topic: str, payload: bytes) -> None:
        """Publish in one packet that `lost` checks for. Raises TransportError."""
        await self.transport.publish(topic, payload, retain=True)
        self.watched[topic] = payload

    async def put_watched(self, topic: Callable[[int], str], frame: bytes) -> None:
        """Publish in chunks, of which `lost` checks for the first. Raises TransportError."""
        await self.put(topic, frame)
        self.watched[topic(0)] = split(frame, self.transport.max_payload_bytes)[0]

    async def lost(self) -> list[str]:
        """Topics of watched payloads that the broker lost or replaced. Raises TransportError."""
        return [
            topic for topic, payload in self.watched.items() if await self._at(topic) != payload
        ]

    async def first(
        self, topic_filter: str, wanted: Callable[[bytes], _T | None], patience_s: float
    ) -> _T | None:
        """The first result of `wanted` on a retained frame that is not None; None after `patience_s`.

        Others may have published frames beside it. Raises TransportError.
        """
        assembler, clock = Assembler(max_open_per_sender=16), asyncio.get_running_loop().time

        async def found() -> _T | None:
            async with self.transport.subscribe(topic_filter, qos=0) as packets:
                async for packet in packets:
                    packet.ack()
                    try:
                        whole = assembler.add("server", packet.payload, clock())
                    except WireError:
                        continue  # anybody may have put it there
                    if whole is not None and (one := wanted(whole)) is not None:
                        return one
            return None

        reading = asyncio.ensure_future(found())
        try:
            await asyncio.wait({reading}, timeout=patience_s)  # not wait_for: as below
        finally:
            reading.cancel()
            await asyncio.wait({reading})
        return None if reading.cancelled() else reading.result()

    async def _at(self, topic: str) -> bytes | None:
        async with self.transport.subscribe(topic, qos=0) as packets:
            first = asyncio.ensure_future(anext(packets))
            try:
                # Not wait_for: before Python 3.12 that may swallow a cancellation.
                await asyncio.wait({first}, timeout=PATIENCE_S)
            finally:
                first.cancel()
                await asyncio.wait({first})
            if first.cancelled() or isinstance(first.exception(), StopAsyncIteration):
                return None
            packet = first.result()
            packet.ack()
            return packet.payload
