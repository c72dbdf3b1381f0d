"""Many questions in one call. Knows neither Ray nor what is asked about."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class CallCoalescer(Generic[Answer]):
    """What is asked while a call is under way shares the next one: at any time there is one call."""

    def __init__(self, answers: Callable[[list[int]], Awaitable[list[Answer | Exception]]]) -> None:
        """`answers` gives one for each number, in their order; an exception is for that one alone."""
        self.answers = answers
        self.waiting: list[tuple[int, asyncio.Future[Answer]]] = []
        self.asking: asyncio.Task[None] | None = None

    async def answer(self, number: int) -> Answer:
        """Raises what `answers` has for this number, or raised for all of them."""
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
