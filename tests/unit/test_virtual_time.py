"""Virtual time: an hour costs nothing, the order is the program's, and what cannot end says so."""

import asyncio
import random

import pytest

from fleetfl.task_group import together
from sim.fleet.virtual_time import DeadlinePassed, Deadlock, VirtualTimeLoop, run

pytestmark = pytest.mark.unit


def test_an_hour_of_sleeps_takes_no_time():
    async def main() -> float:
        for _ in range(3600):
            await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    assert run(main(), start_s=1_000_000.0) == 1_003_600.0


def test_timers_of_one_time_run_in_the_order_they_were_set():
    """Ten sleepers until 5 and ten until 3, set in any order: by time, then by when they were set."""
    order = list(range(20))
    random.Random(1).shuffle(order)
    done: list[int] = []

    async def sleeper(number: int) -> None:
        await asyncio.sleep(5 if number % 2 else 3)
        done.append(number)

    async def main() -> None:
        await asyncio.gather(*(sleeper(number) for number in order))

    run(main())
    assert done == [n for n in order if not n % 2] + [n for n in order if n % 2]


def test_what_is_ready_runs_before_time_passes():
    said: list[tuple[str, float]] = []

    async def busy() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        said.append(("busy", asyncio.get_running_loop().time()))

    async def main() -> None:
        asyncio.get_running_loop().call_later(1e-9, said.append, ("timer", 0.0))
        await busy()
        await asyncio.sleep(1)

    run(main())
    assert said == [("busy", 0.0), ("timer", 0.0)]


def test_wait_for_gives_up_at_its_time_and_leaves_no_timer_when_it_does_not():
    async def main() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 7.5)
        given_up = loop.time()
        for _ in range(10_000):
            await asyncio.wait_for(asyncio.sleep(0), 3600)
        return given_up, len(loop._timers)

    given_up, left = run(main())
    assert given_up == 7.5
    assert left < 1000


def test_the_first_exception_of_tasks_that_belong_together_ends_them_all():
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("waits")

    async def fails() -> None:
        await asyncio.sleep(1)
        raise KeyError("broken")

    async def main() -> None:
        await together(one=waits(), other=fails())

    with pytest.raises(KeyError, match="broken"):
        run(main())
    assert ended == ["waits"]


def test_threads_are_not_used():
    """A call aside runs at once; its exception arrives where it is awaited."""

    async def main() -> tuple[int, float]:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return await asyncio.to_thread(max, 3, 4), asyncio.get_running_loop().time()

    assert run(main()) == (4, 0.0)


def test_a_call_from_another_thread_is_refused():
    async def main() -> None:
        with pytest.raises(RuntimeError, match="another thread"):
            asyncio.get_running_loop().call_soon_threadsafe(print)

    run(main())


def test_a_deadlock_names_who_waits():
    async def main() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the one for Godot")

    with pytest.raises(Deadlock, match=r"at 0 s nothing .* main, the one for Godot"):
        run(main())


def test_what_is_not_over_at_the_deadline_is_cancelled():
    cancelled_at: list[float] = []

    async def main() -> None:
        try:
            while True:
                await asyncio.sleep(10)
        finally:
            # A goodbye may take time, although the deadline has passed.
            await asyncio.sleep(5)
            cancelled_at.append(asyncio.get_running_loop().time())

    with pytest.raises(DeadlinePassed, match="not over at 95 s: main"):
        run(main(), deadline_s=95)
    assert cancelled_at == [95.0]


def test_what_is_over_at_the_deadline_is_in_time():
    async def main() -> str:
        await asyncio.sleep(95)
        return "in time"

    assert run(main(), deadline_s=95) == "in time"


def test_left_tasks_are_cancelled_in_the_order_of_their_names():
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def main() -> None:
        tasks = [asyncio.create_task(forever(name), name=name) for name in "cab"]
        await asyncio.sleep(1)
        assert len(tasks) == 3

    run(main())
    assert ended == ["a", "b", "c"]
