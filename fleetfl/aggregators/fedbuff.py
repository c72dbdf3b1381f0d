"""FedBuff: one step every `goal` updates, each discounted by its staleness (arXiv:2106.06639).

With s(tau) the staleness rule, the step is (1/K) sum_i s(tau_i) delta_i, algorithm 1 of the paper.
`normalize: weights` divides by the summed weights instead, so that a buffer of stale updates
takes as large a step as one of fresh ones; the paper's K is the default.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Step
from fleetfl.aggregators._fit import require_fit
from fleetfl.aggregators._weighted_sum import weighted_sum
from fleetfl.staleness import AnyStalenessRule
from fleetfl.staleness.polynomial import Config as Polynomial


class Config(AggregatorConfig):
    """Settings of FedBuff."""

    kind: Literal["fedbuff"] = "fedbuff"
    goal: int = Field(default=10, ge=1)
    """Number of updates in a server step (K in the paper). A larger goal gives fewer and steadier steps."""
    staleness: AnyStalenessRule = Polynomial()
    """Rule for the weight of a late update (s in the paper)."""
    normalize: Literal["count", "weights"] = "count"
    """Divisor of the buffer's sum: K (the paper) or the sum of its weights."""
    weigh_examples: bool = False
    """Whether an update is weighed by its number of examples too; a mean only with `normalize: weights`."""
    max_held_bytes: int = Field(default=256 * 2**20, ge=0)
    """Memory, bytes, in which updates wait to be summed together, which is faster; beyond it they are summed
    sooner. The step has the same bits either way."""

    def build(self, size: int) -> "FedBuff":
        return FedBuff(self, size)


class FedBuff(Aggregator):
    """A buffer of updates: some held as they arrived, the others already summed.

    Every value is summed in the order of arrival, so the same arrivals give the same bits, whenever a part
    of them is summed early and wherever a snapshot is taken.
    """

    def __init__(self, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.held: list[np.ndarray] = []
        self.held_weights: list[float] = []
        self.total: np.ndarray | None = None
        self.weights = 0.0
        self.staleness: list[int] = []
        """Staleness, in versions, of each buffered update."""

    @property
    def goal(self) -> int:
        return self.config.goal

    @property
    def buffered(self) -> int:
        return len(self.staleness)

    def add(
        self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int
    ) -> Step | None:
        """Buffer the delta; raises ValueError for another shape or dtype than float32 [P]."""
        require_fit(delta, self.size)
        weight = self.config.staleness.weight(staleness)
        if self.config.weigh_examples:
            weight *= num_examples
        self.held.append(delta)
        self.held_weights.append(weight)
        self.weights += weight
        self.staleness.append(staleness)
        if self.buffered >= self.config.goal:  # more, where a restart lowered the goal
            return self._step()
        if len(self.held) * delta.nbytes > self.config.max_held_bytes:
            self.total = self._sum()
        return None

    def _step(self) -> Step:
        divisor = self.buffered if self.config.normalize == "count" else self.weights
        step = Step(self._sum(divisor), tuple(self.staleness))
        self.total, self.weights, self.staleness = None, 0.0, []
        return step

    def _sum(self, divisor: float = 1.0) -> np.ndarray:
        """Weighted sum of all buffered updates over `divisor`; no update is held afterwards."""
        total = weighted_sum(self.held, self.held_weights, onto=self.total, divisor=divisor)
        self.held, self.held_weights = [], []
        return total

    def snapshot(self) -> dict[str, Any]:
        if self.held:
            self.total = self._sum()
        total = np.zeros(self.size, np.float32) if self.total is None else self.total.copy()
        return {"total": total, "weights": self.weights, "staleness": [*self.staleness]}

    def restore(self, state: dict[str, Any]) -> None:
        self.weights, self.staleness = state["weights"], [*state["staleness"]]
        # A sum begins with its first product: begun from zeros, -0.0 would turn into 0.0.
        self.total = state["total"].copy() if self.buffered else None
        self.held, self.held_weights = [], []
