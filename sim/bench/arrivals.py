"""Who is done when, in a fleet of unequal vehicles: decided by the seed, so that runs can share it."""

import heapq
from collections.abc import Iterator

import numpy as np


def arrivals(
    num_vehicles: int, count: int, *, sigma: float, jitter: float = 0.1, seed: int
) -> Iterator[int]:
    """The vehicle of each of `count` updates, in the order they arrive.

    A vehicle's time for an update is log-normal with `sigma` over the fleet, and varies by `jitter`
    (also a log-normal's sigma) from one to the next.
    """
    rng = np.random.default_rng(seed)
    pace_s = np.exp(rng.normal(0.0, sigma, num_vehicles))
    done = [(pace_s[v] * float(np.exp(rng.normal(0.0, jitter))), v) for v in range(num_vehicles)]
    heapq.heapify(done)
    for _ in range(count):
        at, vehicle = done[0]
        yield vehicle
        spent = pace_s[vehicle] * float(np.exp(rng.normal(0.0, jitter)))
        heapq.heapreplace(done, (at + spent, vehicle))
