"""How much may be under way at a time, by number and by bytes. Knows nothing of what it is."""

import asyncio


class Room:
    """One task takes; whoever is done gives back. One thing alone always has room, however large it is."""

    def __init__(self, most: int, max_bytes: int) -> None:
        self.most, self.max_bytes = most, max_bytes
        self.number, self.num_bytes = 0, 0
        self.given = asyncio.Event()

    async def take(self, num_bytes: int) -> None:
        """Returns once there is room."""
        while self.number and not self._fits(num_bytes):
            self.given.clear()
            await self.given.wait()
        self.number += 1
        self.num_bytes += num_bytes

    def _fits(self, num_bytes: int) -> bool:
        return self.number < self.most and self.num_bytes + num_bytes <= self.max_bytes

    def give(self, num_bytes: int) -> None:
        self.number -= 1
        self.num_bytes -= num_bytes
        self.given.set()
