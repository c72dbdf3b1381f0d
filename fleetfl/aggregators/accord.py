"""Accord, our own: each update counts by as much as the updates agree. There is nothing to tune.

    x <- x + r sum_j b_j delta_j,   r = min(GAIN rho, MOST / tau) / max(1, rounds / ROUNDS)^DECAY

rho is the share of an update that others have in common with it: over the updates of late, the mean of
<delta_j, mean of the last updates of other vehicles>, over the mean of |delta_j|^2. It is the least-squares
factor from one update to what all of them want. Far from the goal all pull one way and rho is large; near it
what is left of them is noise, and rho falls by itself: no rate has to be tuned.

b_j evens out who takes part: how many updates came since the vehicle's last one, over the geometric mean of
that number, within [1/4, 4]. Who reports half as often counts twice. ACE (arXiv:2511.19066) gets this from a
cache of all vehicles; here an update is used once, and the state does not grow with the fleet's vectors.

tau is how many updates come while a vehicle trains, in the mean: in that time no more than MOST updates are
applied, however much they agree. The slow have not reported when a fleet begins, so at first tau is the most
that came while one trained, and steps get smaller as that grows, until twice as many have come.

rounds are the updates so far over the vehicles that sent them: how often the fleet's own frames were used.
With steps of constant size a model learns, and after a while begins to shake: its loss gets steeper. They
fall to a tenth at most, so that a fleet still follows a world that drifts.

There is no discount for staleness: it costs time to target (docs/results/algorithms.md).

By hand, `goal` 1: a says [2,0]: nobody to agree with, rho = 1/8, r = 3/16. b says [2,2]: against [2,0]
rho = 4/8, r = 3/4. a says [0,2]: against [2,2] 4, so the means are 4 and (8 + 4)/2, rho = 2/3, r = 1.
"""

from collections import OrderedDict, deque
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Step
from fleetfl.aggregators._fit import require_fit
from fleetfl.aggregators._weighted_sum import weighted_sum

GAIN = 1.5
"""Factor on rho; above 1 because rho is taken from single updates, and several are at work at once."""
MOST = 16.0
"""Largest number of whole updates applied while one vehicle trains."""
PRIOR = 1 / 8
"""Value of rho before two vehicles have reported."""
LEAST = 1 / 256
"""Smallest value of rho. Below it an estimate is random, and at 0 nothing would move any more."""
WINDOW = 16
"""Number of newest updates, float32 [P] each, that the next one is compared with."""
MEMORY = 30
"""Approximate number of updates over which rho, tau and the typical gap are averaged."""
UNEVEN = 4.0
"""Largest value of b; 1 / UNEVEN is the smallest."""
SLOWEST = 4.0
"""Largest first value of tau, as a multiple of its mean."""
ROUNDS = 2.0
"""Mean number of updates of each vehicle before steps get smaller."""
DECAY = 0.75
"""Exponent by which steps get smaller. At 1/2 the remaining randomness costs 3 points of accuracy where
vehicles' labels differ most."""
SMALLEST = 0.1
"""Smallest factor that ROUNDS and DECAY put on a step."""
VEHICLES = 100_000
"""Number of vehicles, those heard of last, whose last report is remembered: an integer each."""
VERSIONS = 1000
"""Number of newest versions whose time of release is remembered: an integer each."""


class Config(AggregatorConfig):
    """Settings of Accord."""

    kind: Literal["accord"] = "accord"
    goal: int = Field(default=5, ge=1)
    """Number of updates for each release. A larger goal gives releases less often; the length of the way does
    not depend on it."""

    def build(self, size: int) -> "Accord":
        return Accord(self, size)


class Accord(Aggregator):
    """Accord's state: the quantities of the formula under their names there, and the window of updates."""

    def __init__(self, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.total: np.ndarray | None = None
        """Weighted sum of the buffered updates, float32 [P]; None if there are none."""
        self.staleness: list[int] = []
        self.window: deque[tuple[str, np.ndarray]] = deque(maxlen=WINDOW)
        self.arrived = 0
        self.released_at: deque[int] = deque(maxlen=VERSIONS)
        """Number of updates that had arrived when each version was released, the newest last."""
        self.last: OrderedDict[str, int] = OrderedDict()
        """Ordinal of each vehicle's last update among all arrivals."""
        self.product, self.square = _Mean(), _Mean()
        """Running means of <delta, mean of others> and of |delta|^2."""
        self.trip, self.log_gap = _Mean(), _Mean()
        """Running means of the number of updates since an update's base was released, and of the logarithm of
        the number of updates since its vehicle's last one."""
        self.longest = 0
        """Largest number of updates that came between a base's release and an update from it."""

    @property
    def goal(self) -> int:
        return self.config.goal

    @property
    def buffered(self) -> int:
        return len(self.staleness)

    @property
    def rho(self) -> float:
        if not self.product.count:
            return PRIOR
        return min(1.0, max(LEAST, self.product.value / max(self.square.value, 1e-300)))

    @property
    def tau(self) -> float:
        early = min(float(self.longest), SLOWEST * self.trip.value)
        return max(early, self.trip.value) if self.arrived <= 2 * early else self.trip.value

    def add(
        self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int
    ) -> Step | None:
        require_fit(delta, self.size)
        self.arrived += 1
        base = self.released_at[max(0, len(self.released_at) - 1 - staleness)]
        self.trip.take(self.arrived - base)
        self.longest = max(self.longest, self.arrived - base)
        self._listen(delta, vehicle)
        balance = self._balance(vehicle)
        rounds = self.arrived / len(self.last)
        late = max(SMALLEST, 1 / max(1.0, rounds / ROUNDS) ** DECAY)
        weight = late * min(GAIN * self.rho, MOST / self.tau) * balance
        self.total = weighted_sum([delta], [weight], onto=self.total)
        self.staleness.append(staleness)
        return self._step() if self.buffered >= self.config.goal else None

    def _listen(self, delta: np.ndarray, vehicle: str) -> None:
        """Compare the delta, float32 [P], with other vehicles' newest ones to estimate how far they agree."""
        others = [theirs for whose, theirs in self.window if whose != vehicle]
        if others:
            mean = weighted_sum(others, [1.0] * len(others), divisor=len(others))
            self.product.take(_inner(delta, mean))
            self.square.take(_inner(delta, delta))
        self.window.append((vehicle, delta))

    def _balance(self, vehicle: str) -> float:
        before = self.last.pop(vehicle, None)
        self.last[vehicle] = self.arrived
        if len(self.last) > VEHICLES:
            self.last.popitem(last=False)
        if before is None:
            return 1.0
        log_gap = float(np.log(self.arrived - before))
        self.log_gap.take(log_gap)
        return float(np.clip(np.exp(log_gap - self.log_gap.value), 1 / UNEVEN, UNEVEN))

    def _step(self) -> Step:
        assert self.total is not None
        step = Step(self.total, tuple(self.staleness))
        self.total, self.staleness = None, []
        return step

    def forget(self, vehicle: str) -> None:
        kept = [each for each in self.window if each[0] != vehicle]
        self.window = deque(kept, WINDOW)
        self.last.pop(vehicle, None)

    def released(self, vector: np.ndarray) -> None:
        self.released_at.append(self.arrived)

    def snapshot(self) -> dict[str, Any]:
        return {
            "total": None if self.total is None else self.total.copy(),
            "staleness": [*self.staleness],
            "window": [[*each] for each in self.window],
            "arrived": self.arrived,
            "longest": self.longest,
            "released_at": list(self.released_at),
            "last": dict(self.last),
            "means": [mean.state() for mean in self._means()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.total = None if state["total"] is None else state["total"].copy()
        self.staleness = [*state["staleness"]]
        self.window = deque(((whose, delta) for whose, delta in state["window"]), WINDOW)
        self.arrived, self.longest = state["arrived"], state["longest"]
        self.released_at = deque(state["released_at"], VERSIONS)
        self.last = OrderedDict(state["last"])
        for mean, (value, count) in zip(self._means(), state["means"], strict=True):
            mean.value, mean.count = value, count

    def _means(self) -> "tuple[_Mean, ...]":
        return self.product, self.square, self.trip, self.log_gap


class _Mean:
    """Running mean: of all values so far, and later of about the last MEMORY."""

    def __init__(self) -> None:
        self.value, self.count = 0.0, 0

    def take(self, value: float) -> None:
        self.count = min(self.count + 1, MEMORY)
        self.value += (value - self.value) / self.count

    def state(self) -> list[float]:
        return [self.value, self.count]


def _inner(one: np.ndarray, other: np.ndarray) -> float:
    """Inner product, summed in float64 without BLAS, whose last bits depend on the processor."""
    return float(np.sum(one.astype(np.float64) * other))
