"""Adam on the aggregated deltas (FedAdam, arXiv:2003.00295, algorithm 2).

    m <- b1 m + (1 - b1) change;   v <- b2 v + (1 - b2) change^2;   x <- x + eta_g m / (sqrt(v) + t)

As in that paper there is no bias correction, and v begins at t^2. m and v are float64.

By hand, b1 = b2 = 1/2, t = 1, eta_g = 1, a change of 4: m = 2, v = 1/2 + 16/2 = 8.5, and x moves by
2 / (sqrt(8.5) + 1).
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Step
from fleetfl.server_optimizers import OptimizerConfig


class Config(OptimizerConfig):
    """Settings of Adam."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = Field(default=1e-2, gt=0)
    """Approximate distance that each value moves in a step (eta_g in the paper)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running mean of changes (b1); closer to 1 is smoother and slower."""
    beta2: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running mean of squared changes (b2); closer to 1 is smoother and slower."""
    adaptivity: float = Field(default=1e-3, gt=0)
    """Term t added to the root of v: changes much smaller than it are not magnified. Larger values come
    closer to plain SGD."""

    def build(self, size: int) -> "Adam":
        return Adam(self, size)


class Adam:
    """State of Adam: running means of changes and of squared changes, float64 [P]."""

    def __init__(self, config: Config, size: int) -> None:
        self.config = config
        self.mean = np.zeros(size, np.float64)
        self.square = np.full(size, config.adaptivity**2, np.float64)

    def apply(self, params: np.ndarray, step: Step) -> np.ndarray:
        config, change = self.config, step.change.astype(np.float64)
        self.mean = config.beta1 * self.mean + (1 - config.beta1) * change
        self.square = self._square_after(change**2)
        moved = self.mean / (np.sqrt(self.square) + config.adaptivity)
        return (params + config.learning_rate * moved).astype(np.float32)

    def _square_after(self, squared: np.ndarray) -> np.ndarray:
        return self.config.beta2 * self.square + (1 - self.config.beta2) * squared

    def snapshot(self) -> dict[str, Any]:
        # No copies: each step replaces them, none writes into them.
        return {"mean": self.mean, "square": self.square}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.square = state["mean"], state["square"]
