"""Queue of packets for one subscriber, in order. Knows nothing of where they come from."""

import asyncio
from collections import deque

from fleetfl.transport import Packet


class Inbox:
    """Async iterator of packets; a cancelled `anext` leaves it usable, unlike an async generator."""

    def __init__(self, topic_filter: str) -> None:
        self.topic_filter = topic_filter
        self._waiting: deque[Packet] = deque()
        self._changed = asyncio.Event()
        self._end: Exception | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, packet: Packet) -> None:
        self._waiting.append(packet)
        self._changed.set()

    def take_all(self) -> list[Packet]:
        """Packets that no `anext` has taken yet; the inbox is empty afterwards."""
        packets = list(self._waiting)
        self._waiting.clear()
        return packets

    def end(self, error: Exception | None = None) -> None:
        """End the inbox: after the packets that wait here, iteration stops or raises `error`."""
        self._end = error or StopAsyncIteration()
        self._changed.set()

    def __aiter__(self) -> "Inbox":
        return self

    async def __anext__(self) -> Packet:
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()
