"""Limits the items under way at a time, by number and by bytes. Knows nothing of the items."""

import asyncio


class Room:
    """A semaphore over count and bytes: one task takes, any gives back. A lone item always fits."""

    def __init__(self, most: int, max_bytes: int) -> None:
        self.most, self.max_bytes = most, max_bytes
        self.number, self.num_bytes = 0, 0
        self.given = asyncio.Event()

    async def take(self, num_bytes: int) -> None:
        """Wait for room for an item of this size, and take it."""
        while self.number and not self._fits(num_bytes):
            self.given.clear()
            await self.given.wait()
        self.number += 1
        self.num_bytes += num_bytes

    def _fits(self, num_bytes: int) -> bool:
        return self.number < self.most and self.num_bytes + num_bytes <= self.max_bytes

    def give(self, num_bytes: int) -> None:
        """Give back the room of an item of this size."""
        self.number -= 1
        self.num_bytes -= num_bytes
        self.given.set()
