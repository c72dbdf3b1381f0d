"""An asyncio event loop whose clock jumps: when nothing is ready, it is the time of the next timer.

A day of sleeps takes as long as the code between them. There is no selector and no thread, so the order
of everything follows from the program: callbacks in the order in which they became ready, timers by their
time, and those of one time in the order in which they were set. It knows of no fleet.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, NoReturn, TypeVar

from fleetfl import FleetflError

T = TypeVar("T")

TASKS_NAMED = 10
PURGE_ABOVE = 100
"""Cancelled timers that may lie about before they are swept up; after that, as many as live ones."""


class Deadlock(FleetflError, RuntimeError):
    """Everything waits and nothing is scheduled, so nothing will ever happen; names who waits."""


class DeadlinePassed(FleetflError, TimeoutError):
    """The run has not ended by its deadline; names when it was and who still works."""


def run(main: Coroutine[Any, Any, T], *, start_s: float = 0.0, deadline_s: float = math.inf) -> T:
    """As asyncio.run, on a clock that begins at `start_s`; what is not over by `deadline_s` is cancelled.

    Raises what `main` raises, Deadlock or DeadlinePassed.
    """
    loop = VirtualTimeLoop(start_s=start_s, deadline_s=deadline_s)
    task = loop.create_task(main, name="main")
    try:
        return loop.run_until_complete(task)
    finally:
        loop.deadline_s = math.inf
        _cancel(loop, task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _cancel(loop: asyncio.AbstractEventLoop, main: "asyncio.Task[Any]") -> None:
    """`main` first, which ends those it looks after in the order of its own; the rest by name."""
    for task in (main, *sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name)):
        if not task.done():
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Seconds since any epoch one likes. No sockets, no subprocesses, no signals.

    What is handed to a thread (`asyncio.to_thread`) runs at once, here, and takes no time.
    """

    # BaseEventLoop's own, of which its type stubs do not tell.
    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self, *, start_s: float = 0.0, deadline_s: float = math.inf) -> None:
        super().__init__()
        self.now, self.deadline_s = start_s, deadline_s
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._num_cancelled = 0

    def time(self) -> float:
        return self.now

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> NoReturn:
        raise RuntimeError("another thread may not call into virtual time: nothing orders it")

    # The hooks of BaseEventLoop. One turn runs what is ready; time passes only if nothing is.

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:
            self._jump()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """To the next timer; all that are due then become ready, in the order they were set."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            self._popped()
        if not timers:
            raise Deadlock(f"at {self.now:g} s nothing is scheduled, and there wait: {self._who()}")
        if timers[0][0] > self.deadline_s:
            raise DeadlinePassed(f"not over at {self.deadline_s:g} s: {self._who()}")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            timer = self._popped()
            if not timer._cancelled:
                self._ready.append(timer)

    def _popped(self) -> asyncio.TimerHandle:
        _, _, timer = heapq.heappop(self._timers)
        timer._scheduled = False
        self._num_cancelled -= timer._cancelled
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._num_cancelled += 1
        if self._num_cancelled > max(PURGE_ABOVE, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if not entry[2]._cancelled]
            heapq.heapify(self._timers)
            self._num_cancelled = 0

    def _who(self) -> str:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        more = f" and {len(names) - TASKS_NAMED} more" if len(names) > TASKS_NAMED else ""
        return ", ".join(names[:TASKS_NAMED]) + more
