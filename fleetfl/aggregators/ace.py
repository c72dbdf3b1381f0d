"""ACE: at every arrival a step on the mean of all vehicles' last updates (arXiv:2511.19066).

    h_j <- delta_j;   x <- x + eta_g (1/n) sum_i h_i

Every vehicle weighs the same, however often it reports: participation, not staleness, biases the model most.
`max_age` makes it ACED: a vehicle whose last update was trained from a version more than so many versions
old is left out until it reports again. Where we differ: the paper begins with one gradient of every client,
here the mean is over those heard of; and vehicles send deltas of several local steps, not gradients.
A delta takes part in a step at each of n arrivals, so the server's rate is to be about K/n of FedBuff's.

By hand: a says 2: step 2. b says 6: (2 + 6) / 2 = 4. a says 4: (4 + 6) / 2 = 5. With `max_age` 0
and every update fresh, b's is one version old by then and left out: 4.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Step
from fleetfl.aggregators._cache import CacheConfig, DeltaCache
from fleetfl.aggregators._fit import require_fit


class Config(AggregatorConfig):
    """Settings of ACE and ACED."""

    kind: Literal["ace"] = "ace"
    max_age: int | None = Field(default=None, ge=0)
    """Largest age, in versions, of a vehicle's last update that still counts (tau_algo in the paper); None
    counts all (ACE). A smaller age drops vehicles that report seldom."""
    cache: CacheConfig = CacheConfig()
    """Settings of the cache of each vehicle's last delta."""

    def build(self, size: int) -> "ACE":
        return ACE(self, size)


class ACE(Aggregator):
    """The last delta of every vehicle; each arrival makes a step of their mean."""

    def __init__(self, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.cache = DeltaCache(config.cache, size)
        self.bases: dict[str, int] = {}
        """Version that each cached delta was trained from."""
        self.version = -1

    def add(self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int) -> Step:
        require_fit(delta, self.size)
        for gone in self.cache.put(vehicle, self.cache.packed(delta)):
            del self.bases[gone]
        self.bases[vehicle] = self.version - staleness
        self._leave_out_the_old(vehicle)
        with np.errstate(over="ignore"):
            return Step(self.cache.mean().astype(np.float32), (staleness,))

    def _leave_out_the_old(self, newest: str) -> None:
        if self.config.max_age is None:
            return
        oldest = self.version - self.config.max_age
        # The one that reports counts in any case: it is the reason for this step.
        for vehicle in [v for v, base in self.bases.items() if base < oldest and v != newest]:
            self.cache.drop(vehicle)
            del self.bases[vehicle]

    def forget(self, vehicle: str) -> None:
        self.cache.drop(vehicle)
        self.bases.pop(vehicle, None)

    def released(self, vector: np.ndarray) -> None:
        self.version += 1

    def snapshot(self) -> dict[str, Any]:
        return {
            "cache": self.cache.snapshot(),
            "bases": dict(self.bases),
            "version": self.version,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.cache.restore(state["cache"])
        self.bases, self.version = dict(state["bases"]), state["version"]
