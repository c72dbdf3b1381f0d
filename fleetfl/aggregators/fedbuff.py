"""FedBuff: one step every `goal` updates, each discounted by its staleness (arXiv:2106.06639).

With s(tau) the staleness rule, the step is (1/K) sum_i s(tau_i) delta_i, algorithm 1 of the paper.
`normalize: weights` divides by the summed weights instead, so that a buffer of stale updates
takes as large a step as one of fresh ones; the paper's K is the default.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import AggregatorConfig
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

    def build(self, size: int) -> "FedBuff":
        return FedBuff(self, size)


class FedBuff:
    """The buffer: a running sum, so its memory does not grow with the goal."""

    def __init__(self, config: Config, size: int) -> None:
        self.config = config
        self.total = np.zeros(size, np.float32)
        self.weights = 0.0
        self.buffered = 0

    def add(self, delta: np.ndarray, *, num_examples: int, staleness: int) -> np.ndarray | None:
        weight = self.config.staleness.weight(staleness)
        if self.config.weigh_examples:
            weight *= num_examples
        self.total += np.float32(weight) * delta
        self.weights += weight
        self.buffered += 1
        if self.buffered < self.config.goal:
            return None
        divisor = self.buffered if self.config.normalize == "count" else self.weights
        step = self.total / np.float32(divisor)
        self.total, self.weights, self.buffered = np.zeros_like(self.total), 0.0, 0
        return step

    def snapshot(self) -> dict[str, Any]:
        return {"total": self.total.copy(), "weights": self.weights, "buffered": self.buffered}

    def restore(self, state: dict[str, Any]) -> None:
        self.total = state["total"].copy()
        self.weights, self.buffered = state["weights"], state["buffered"]
