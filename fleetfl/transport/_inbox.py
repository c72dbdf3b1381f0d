"""Packets on their way to one subscriber, in order. Knows nothing of where they come from."""

import asyncio
from collections import deque

from fleetfl.transport import Packet


class Inbox:
    """An async iterator, not an async generator: a cancelled `anext` leaves it usable."""

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
        """What no `anext` has taken yet; the inbox is empty afterwards."""
        packets = list(self._waiting)
        self._waiting.clear()
        return packets

    def end(self, error: Exception | None = None) -> None:
        """No more will come: after what waits here, iteration stops or raises `error`."""
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
