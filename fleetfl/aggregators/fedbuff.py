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
    kind: Literal["fedbuff"] = "fedbuff"
    goal: int = Field(default=10, ge=1)
    """Updates per server step (K in the paper)."""
    staleness: AnyStalenessRule = Polynomial()
    """How much a late update counts."""
    normalize: Literal["count", "weights"] = "count"
    """Divide the buffer by K (the paper) or by the sum of its weights."""
    weigh_examples: bool = False
    """Weigh an update by its number of examples too; needs `normalize: weights` to be a mean."""

    max_held_bytes: int = Field(default=256 * 2**20, ge=0)
    """Updates are held until they are summed together, which is faster; beyond so many bytes, sooner.
    The step has the same bits either way."""

    def build(self, size: int) -> "FedBuff":
        return FedBuff(self, size)


class FedBuff(Aggregator):
    """The buffer: updates held as they came, and the sum of those that are held no more.

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
        """Of all that is buffered."""

    @property
    def goal(self) -> int:
        return self.config.goal

    @property
    def buffered(self) -> int:
        return len(self.staleness)

    def add(
        self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int
    ) -> Step | None:
        """Raises ValueError for another shape or dtype."""
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
        """The sum of all, divided; nothing is held afterwards."""
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
