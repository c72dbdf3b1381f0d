"""SGD with momentum on the aggregated deltas (FedAvgM, arXiv:1909.06335)."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Step
from fleetfl.server_optimizers import OptimizerConfig


class Config(OptimizerConfig):
    """Settings of SGD with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=1.0, gt=0)
    """Factor on the velocity, which without momentum is the mean delta (eta_g); 1 applies it whole."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last step's velocity that is kept (beta); closer to 1 is smoother and goes farther."""

    def build(self, size: int) -> "SGD":
        return SGD(self, size)


class SGD:
    """State of SGD, the velocity: v <- beta v + change; x <- x + eta_g v."""

    def __init__(self, config: Config, size: int) -> None:
        self.config = config
        self.velocity = np.zeros(size, np.float32)

    def apply(self, params: np.ndarray, step: Step) -> np.ndarray:
        self.velocity = self._velocity_after(step.change)
        if self.config.learning_rate == 1:
            return params + self.velocity
        change = np.float32(self.config.learning_rate) * self.velocity
        return np.add(params, change, out=change)

    def _velocity_after(self, change: np.ndarray) -> np.ndarray:
        if self.config.momentum == 0:
            return change
        velocity = np.float32(self.config.momentum) * self.velocity
        return np.add(velocity, change, out=velocity)

    def snapshot(self) -> dict[str, Any]:
        # No copy: each step replaces the velocity, none writes into it.
        return {"velocity": self.velocity}

    def restore(self, state: dict[str, Any]) -> None:
        self.velocity = state["velocity"]
