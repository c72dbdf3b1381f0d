"""Decodes pictures outside the model's thread, in two lanes. Knows neither HTTP nor a model.

A small picture takes milliseconds and a large one up to a second, so each kind waits in a lane of its own,
one thread a lane: large ones, honest or hostile, hold up nobody but each other, and one at most is in memory.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from fleetfl.pictures import Bounds, Header, decoded, look

SMALL_WORK = 2_000_000
"""Pixels of work to decode; a picture that takes more is a large one."""
SMALL_BYTES = 2 * 2**20
LARGE_WAITING = 16
FINER = 16
"""A picture is unpacked at least so many times finer than the model looks at it, and at 1,024 pixels."""

_T = TypeVar("_T")


class Busy(Exception):
    """Too many requests wait in a lane; the message names the lane."""


class Lane:
    """One thread with a bounded queue; `prepare` is called in the thread before anything else."""

    def __init__(
        self, name: str, *, max_waiting: int, timeout_s: float, prepare: Callable[[], object]
    ) -> None:
        self.name, self.timeout_s = name, timeout_s
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=prepare)
        self.max_waiting, self.num_waiting = max_waiting, 0
        self.lock = threading.Lock()
        self.began: float | None = None

    @property
    def busy_s(self) -> float:
        """Seconds that the thread has been at its present call; 0 if idle."""
        began = self.began
        return 0.0 if began is None else time.monotonic() - began

    def _left(self, _: object) -> None:
        with self.lock:
            self.num_waiting -= 1

    def _timed(self, call: Callable[..., _T], *args: Any) -> _T:
        self.began = time.monotonic()
        try:
            return call(*args)
        finally:
            self.began = None

    async def run(self, call: Callable[..., _T], *args: Any, timeout_s: float | None = None) -> _T:
        """Run the call in the lane's thread; gives its result. Raises Busy if that does not come in time.

        A call that nobody waits for any more keeps its place while it runs: a thread cannot be stopped.
        """
        patience_s = self.timeout_s if timeout_s is None else timeout_s
        with self.lock:
            if self.num_waiting >= self.max_waiting:
                raise Busy(f"{self.name}: {self.num_waiting} requests wait already")
            self.num_waiting += 1
        future = self.thread.submit(self._timed, call, *args)
        future.add_done_callback(self._left)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), patience_s)
        except asyncio.TimeoutError as late:
            raise Busy(f"{self.name}: not done within {patience_s:g} s") from late


class Decoding:
    """Decodes bodies to pictures and hands each to `then` in the thread that decoded it."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        image_size: int,
        max_waiting: int,
        timeout_s: float,
        prepare: Callable[[], object],
    ) -> None:
        self.bounds, self.fit = bounds, max(FINER * image_size, 1024)
        more = {"timeout_s": timeout_s, "prepare": prepare}
        self.small = Lane("small pictures", max_waiting=max_waiting, **more)
        self.large = Lane("large pictures", max_waiting=LARGE_WAITING, **more)

    async def run(self, body: bytes, then: Callable[[np.ndarray], _T]) -> _T:
        """The result of `then` on the picture, uint8 [H, W, 3]. Raises PictureError or Busy."""
        about, done = await self.small.run(self._looked_at, body, then)
        return done[0] if done else await self.large.run(self._unpacked, about, then)

    def _looked_at(
        self, body: bytes, then: Callable[[np.ndarray], _T]
    ) -> tuple[Header, tuple[_T, ...]]:
        """The picture's header, and the result if the picture is small enough to decode at once."""
        about = look(body, self.bounds)
        if about.work > SMALL_WORK or len(body) > SMALL_BYTES:
            return about, ()
        return about, (self._unpacked(about, then),)

    def _unpacked(self, about: Header, then: Callable[[np.ndarray], _T]) -> _T:
        return then(decoded(about, fit=self.fit))
