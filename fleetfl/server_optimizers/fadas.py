"""FADAS: AMSGrad on the buffered mean, slower when a buffer holds old updates (ICML 2024, arXiv:2407.18365).

    m <- b1 m + (1 - b1) change;   v <- b2 v + (1 - b2) change^2;   u <- max(u, v)
    eta = eta_g if tau_max <= tau_c else min(eta_g, 1 / tau_max);   x <- x + eta m / (sqrt(u) + e)

The rule for `change` is the aggregator's: `fedbuff` with `staleness: {kind: constant}` is the paper's.
The 1 / tau_max has no unit of its own and so only ever bites if eta_g is larger than it: `scaled` puts
eta_g / tau_max there instead, for the small rates that Adam needs.

By hand, b1 = b2 = 1/2, eta_g = 1, tau_c = 1, e = 0: a fresh change of 4: m = 2, v = u = 8, x = 2 / sqrt(8).
Then a change of 0, four versions old: m = 1, v = 4, u = 8 still, eta = 1/4: x moves by 1/4 / sqrt(8).
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Step
from fleetfl.server_optimizers import OptimizerConfig


class Config(OptimizerConfig):
    """Settings of FADAS."""

    kind: Literal["fadas"] = "fadas"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Approximate distance that each value moves in a step (eta_g in the paper)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running mean of changes (b1); closer to 1 is smoother and slower."""
    beta2: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running mean of squared changes (b2); closer to 1 is smoother and slower."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Term e added to the root in the divisor, so that it is never zero."""
    threshold: int = Field(default=1, ge=0)
    """Largest staleness, in versions, at which the rate is not reduced (tau_c in the paper)."""
    delay: Literal["paper", "scaled"] = "paper"
    """Rate for a buffer with staleness tau_max over `threshold`: `paper` takes min(eta_g, 1 / tau_max),
    `scaled` eta_g / tau_max."""

    def build(self, size: int) -> "FADAS":
        return FADAS(self, size)


class FADAS:
    """State of FADAS: running means of changes and squares, and the largest mean of squares, float64 [P]."""

    def __init__(self, config: Config, size: int) -> None:
        self.config = config
        self.mean = np.zeros(size, np.float64)
        self.square = np.zeros(size, np.float64)
        self.largest = np.zeros(size, np.float64)

    def apply(self, params: np.ndarray, step: Step) -> np.ndarray:
        config, change = self.config, step.change.astype(np.float64)
        self.mean = config.beta1 * self.mean + (1 - config.beta1) * change
        self.square = config.beta2 * self.square + (1 - config.beta2) * change**2
        self.largest = np.maximum(self.largest, self.square)
        moved = self.mean / (np.sqrt(self.largest) + config.epsilon)
        return (params + self._rate(max(step.staleness, default=0)) * moved).astype(np.float32)

    def _rate(self, oldest: int) -> float:
        rate = self.config.learning_rate
        if oldest <= self.config.threshold:
            return rate
        return min(rate, 1 / oldest) if self.config.delay == "paper" else rate / oldest

    def snapshot(self) -> dict[str, Any]:
        # No copies: each step replaces them, none writes into them.
        return {"mean": self.mean, "square": self.square, "largest": self.largest}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.square = state["mean"], state["square"]
        self.largest = state["largest"]
