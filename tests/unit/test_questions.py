"""Many questions in one call."""

import asyncio

import pytest

from actors.call_coalescer import CallCoalescer

pytestmark = pytest.mark.unit


class Oracle:
    """Answers n by 10 n, when it is let; 13 by an error."""

    def __init__(self):
        self.calls, self.may = [], asyncio.Semaphore(0)

    async def answers(self, numbers):
        self.calls.append(numbers)
        await self.may.acquire()
        return [ValueError("13") if n == 13 else 10 * n for n in numbers]


async def asked(questions, numbers):
    tasks = [asyncio.create_task(questions.answer(n)) for n in numbers]
    await asyncio.sleep(0.01)
    return tasks


def test_what_is_asked_meanwhile_shares_the_next_call():
    async def scenario():
        oracle = Oracle()
        questions = CallCoalescer(oracle.answers)
        tasks = await asked(questions, [1]) + await asked(questions, [2, 3, 4])
        assert oracle.calls == [[1]]
        oracle.may.release()
        oracle.may.release()
        assert await asyncio.gather(*tasks) == [10, 20, 30, 40]
        assert oracle.calls == [[1], [2, 3, 4]]

    asyncio.run(scenario())


def test_an_error_is_for_whom_it_concerns():
    async def scenario():
        oracle = Oracle()
        questions = CallCoalescer(oracle.answers)
        first, *others = await asked(questions, [1]) + await asked(questions, [2, 13])
        oracle.may.release()
        oracle.may.release()
        assert await first == 10
        assert await others[0] == 20
        with pytest.raises(ValueError, match="13"):
            await others[1]

    asyncio.run(scenario())


def test_a_failed_call_fails_those_in_it_and_no_later_ones():
    async def scenario():
        fails = True

        async def answers(numbers):
            if fails:
                raise ConnectionError("away")
            return numbers

        questions = CallCoalescer(answers)
        with pytest.raises(ConnectionError):
            await questions.answer(1)
        fails = False
        assert await questions.answer(2) == 2

    asyncio.run(scenario())


def test_who_gave_up_keeps_nobody_from_an_answer():
    async def scenario():
        oracle = Oracle()
        questions = CallCoalescer(oracle.answers)
        (first,) = await asked(questions, [1])
        gone, second = await asked(questions, [2, 3])
        gone.cancel()
        oracle.may.release()
        oracle.may.release()
        assert await asyncio.gather(first, second) == [10, 30]

    asyncio.run(scenario())
