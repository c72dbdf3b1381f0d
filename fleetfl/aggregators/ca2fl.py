"""CA2FL: a buffer calibrated with each vehicle's last update (ICLR 2024, openreview 4aywmeb97I).

With h_i the last delta of vehicle i, once `goal` updates came:

    v = mean of all h + (1/K) sum_j (delta_j - h_j);   x <- x + eta_g v;   h_j <- delta_j

The mean of all h stands for the vehicles that did not report, and the buffer only corrects it. Where we
differ: the paper's mean is over all N vehicles, with h = 0 for those not heard of yet; here it is over those
heard of, because a fleet does not know its N, and a new vehicle's h is 0 only in the difference. Two updates
of one vehicle in one buffer are both taken against the h from before it.

By hand, K = 1: a says 2: v = 0 + (2 - 0) = 2. b says 6: v = 2 + (6 - 0) = 8. a says 4: the mean of 2 and 6
is 4, v = 4 + (4 - 2) = 6.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Step
from fleetfl.aggregators._cache import CacheConfig, DeltaCache, Packed
from fleetfl.aggregators._fit import require_fit


class Config(AggregatorConfig):
    """Settings of CA2FL."""

    kind: Literal["ca2fl"] = "ca2fl"
    goal: int = Field(default=10, ge=1)
    """Number of updates in a server step (K in the paper). A larger goal gives fewer and steadier steps."""
    cache: CacheConfig = CacheConfig()
    """Settings of the cache of each vehicle's last delta."""

    def build(self, size: int) -> "CA2FL":
        return CA2FL(self, size)


class CA2FL(Aggregator):
    """A buffer of corrections to the mean of all vehicles' last deltas."""

    def __init__(self, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.cache = DeltaCache(config.cache, size)
        self.correction = np.zeros(size, np.float64)
        """Sum of the buffered delta_j - h_j, float64 [P]."""
        self.reported: dict[str, Packed] = {}
        """Newest buffered delta of each vehicle."""
        self.staleness: list[int] = []

    @property
    def goal(self) -> int:
        return self.config.goal

    @property
    def buffered(self) -> int:
        return len(self.staleness)

    def add(
        self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int
    ) -> Step | None:
        require_fit(delta, self.size)
        entry = self.cache.packed(delta)
        self.correction += delta
        last = self.cache.get(vehicle)
        if last is not None:
            self.correction -= last
        self.reported.pop(vehicle, None)  # so that who reported last is last
        self.reported[vehicle] = entry
        self.staleness.append(staleness)
        return self._step() if self.buffered >= self.config.goal else None

    def _step(self) -> Step:
        calibrated = self.cache.mean() + self.correction / self.buffered
        step = Step(_float32(calibrated), tuple(self.staleness))
        for vehicle, entry in self.reported.items():
            self.cache.put(vehicle, entry)
        self.correction = np.zeros(self.size, np.float64)
        self.reported, self.staleness = {}, []
        return step

    def forget(self, vehicle: str) -> None:
        self.cache.drop(vehicle)
        self.reported.pop(vehicle, None)

    def snapshot(self) -> dict[str, Any]:
        return {
            "cache": self.cache.snapshot(),
            "correction": self.correction.copy(),
            "reported": dict(self.reported),
            "staleness": [*self.staleness],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.cache.restore(state["cache"])
        self.correction = state["correction"].copy()
        self.reported, self.staleness = dict(state["reported"]), [*state["staleness"]]


def _float32(vector: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # whoever applies the step looks at it
        return vector.astype(np.float32)
