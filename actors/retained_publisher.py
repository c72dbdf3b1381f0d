"""What the server has the broker retain, in chunks if need be. Knows nothing of what it means.

A broker that was killed before it saved forgets it without a word. So one looks now and then.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fleetfl.protocol.chunks import Assembler, split
from fleetfl.protocol.wire import WireError
from fleetfl.transport import Transport

_T = TypeVar("_T")
PATIENCE_S = 5.0
"""A retained packet comes at once, if it is there."""


class RetainedPublisher:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.num_chunks: dict[str, int] = {}
        """By the topic of the first."""
        self.watched: dict[str, bytes] = {}
        """What should be there, by topic."""

    async def put(self, topic: Callable[[int], str], frame: bytes) -> None:
        """On `topic(0)` and on; chunks that a longer one left there are cleared. Raises TransportError."""
        chunks = split(frame, self.transport.max_payload_bytes)
        for index, chunk in enumerate(chunks):
            await self.transport.publish(topic(index), chunk, retain=True)
        for index in range(len(chunks), self.num_chunks.get(topic(0), 0)):
            await self.transport.publish(topic(index), b"", retain=True)
        self.num_chunks[topic(0)] = len(chunks)

    async def put_whole(self, topic: str, payload: bytes) -> None:
        """In one packet; `lost` looks for it. Raises TransportError."""
        await self.transport.publish(topic, payload, retain=True)
        self.watched[topic] = payload

    async def put_watched(self, topic: Callable[[int], str], frame: bytes) -> None:
        """As `put`; `lost` looks for its first chunk. Raises TransportError."""
        await self.put(topic, frame)
        self.watched[topic(0)] = split(frame, self.transport.max_payload_bytes)[0]

    async def lost(self) -> list[str]:
        """Topics of what is watched and not there, or something else. Raises TransportError."""
        return [
            topic for topic, payload in self.watched.items() if await self._at(topic) != payload
        ]

    async def first(
        self, topic_filter: str, wanted: Callable[[bytes], _T | None], patience_s: float
    ) -> _T | None:
        """What `wanted` makes of the first whole frame there that is one; None if none comes in that time.

        Others may have put theirs beside it. Raises TransportError.
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
