"""Coalesces concurrent calls into one call with many numbers. Knows neither Ray nor what is asked about."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class CallCoalescer(Generic[Answer]):
    """Keeps one call under way at a time; numbers asked for meanwhile share the next call."""

    def __init__(self, answers: Callable[[list[int]], Awaitable[list[Answer | Exception]]]) -> None:
        """`answers` gives one answer for each number, in order; an exception is for that number alone."""
        self.answers = answers
        self.waiting: list[tuple[int, asyncio.Future[Answer]]] = []
        self.asking: asyncio.Task[None] | None = None

    async def answer(self, number: int) -> Answer:
        """The answer for this number. Raises the exception that `answers` gave for it, or raised for all."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((number, answer))
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(self._ask_all(), name="questions.ask")
        return await answer

    async def _ask_all(self) -> None:
        while self.waiting:
            asked, self.waiting = self.waiting, []
            try:
                found = await self.answers([number for number, _ in asked])
            except Exception as failed:  # whatever it is, it is for those who asked
                found = [failed] * len(asked)
            for (_, future), answer in zip(asked, found, strict=True):
                if future.done():  # cancelled: nobody waits any more
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
