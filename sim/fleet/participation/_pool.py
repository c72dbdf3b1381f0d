"""Vehicles that are switched on and free, drawn by their weight, quickly however many there are."""

import asyncio
import itertools
from collections.abc import Callable

import numpy as np

from sim.fleet.vehicle import VirtualVehicle


def zipf_weights(count: int, exponent: float, *, seed: int) -> np.ndarray:
    """float64 [count]: rank^-exponent, ranks dealt by the seed. 0 makes all alike."""
    ranks = np.random.default_rng(seed).permutation(count) + 1.0
    return ranks**-exponent


class Pool:
    """Follows the vehicles' windows by one timer each. `came` is called when one has become free."""

    def __init__(
        self,
        vehicles: list[VirtualVehicle],
        *,
        zipf: float,
        seed: int,
        came: Callable[[], None],
    ) -> None:
        self.vehicles, self.came = vehicles, came
        self.weights = zipf_weights(len(vehicles), zipf, seed=seed).tolist()
        self.sums = [0.0] * (len(vehicles) + 1)
        """Fenwick's tree over the weights of those that are free."""
        self.until_s = [0.0] * len(vehicles)
        """When the window closes that each is in."""
        self.is_free = [False] * len(vehicles)
        self.is_busy = [False] * len(vehicles)
        self.num_free = 0
        self.rng = np.random.default_rng(seed + 1)
        self.throws = itertools.chain.from_iterable(
            self.rng.random(1024).tolist() for _ in itertools.count()
        )

    def start(self) -> None:
        """Those that are on now are free at once, before the first of them is drawn."""
        came, self.came = self.came, lambda: None
        for number in range(len(self.vehicles)):
            self._await_window(number)
        self.came = came
        came()

    def taken(self) -> int | None:
        """The number of one that was free and is busy now; None if none is free."""
        if not self.num_free:
            return None
        number = self._at(next(self.throws) * self._total())
        self.is_busy[number] = True
        self._set_free(number, False)
        return number

    def give_back(self, number: int) -> None:
        self.is_busy[number] = False
        if self.until_s[number] > asyncio.get_running_loop().time():
            self._set_free(number, True)

    def _await_window(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        for begin, end in self.vehicles[number].windows:
            if end > loop.time():
                if begin > loop.time():
                    loop.call_at(begin, self._open, number, end)
                else:
                    self._open(number, end)
                return

    def _open(self, number: int, end: float) -> None:
        self.until_s[number] = end
        if end < float("inf"):
            asyncio.get_running_loop().call_at(end, self._close, number)
        if not self.is_busy[number]:
            self._set_free(number, True)
            self.came()

    def _close(self, number: int) -> None:
        if not self.is_busy[number]:
            self._set_free(number, False)
        self._await_window(number)

    def _set_free(self, number: int, free: bool) -> None:
        if self.is_free[number] == free:
            return
        self.is_free[number] = free
        self.num_free += 1 if free else -1
        change = self.weights[number] if free else -self.weights[number]
        at = number + 1
        while at <= len(self.vehicles):
            self.sums[at] += change
            at += at & -at

    def _total(self) -> float:
        at, total = len(self.vehicles), 0.0
        while at:
            total += self.sums[at]
            at -= at & -at
        return total

    def _at(self, wanted: float) -> int:
        """The free one at whose weight the running sum passes `wanted`."""
        at, step = 0, 1 << len(self.vehicles).bit_length()
        while step:
            if at + step <= len(self.vehicles) and self.sums[at + step] <= wanted:
                at += step
                wanted -= self.sums[at]
            step >>= 1
        # Rounding may lead past the last free one, or to one that is not free.
        number = min(at, len(self.vehicles) - 1)
        while not self.is_free[number]:
            number = (number + 1) % len(self.vehicles)
        return number
