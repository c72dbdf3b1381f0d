"""The server's step: SGD with momentum on the aggregated deltas (FedAvgM, arXiv:1909.06335)."""

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=1.0, gt=0)
    """eta_g: share of the mean delta that is applied."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """beta: share of the last step's velocity that is kept."""

    def build(self, size: int) -> "ServerSGD":
        return ServerSGD(self, size)


class ServerSGD:
    """v <- beta v + step; x <- x + eta_g v. A delta points downhill, so it is added."""

    def __init__(self, config: Config, size: int) -> None:
        self.config = config
        self.velocity = np.zeros(size, np.float32)

    def apply(self, params: np.ndarray, step: np.ndarray) -> np.ndarray:
        """New params, float32 [P]; the old ones are left as they are. `step` is kept, not copied."""
        self.velocity = self._velocity_after(step)
        if self.config.learning_rate == 1:
            return params + self.velocity
        change = np.float32(self.config.learning_rate) * self.velocity
        return np.add(params, change, out=change)

    def _velocity_after(self, step: np.ndarray) -> np.ndarray:
        if self.config.momentum == 0:
            return step
        velocity = np.float32(self.config.momentum) * self.velocity
        return np.add(velocity, step, out=velocity)

    def snapshot(self) -> dict[str, Any]:
        # No copy: each step replaces the velocity, none writes into it.
        return {"velocity": self.velocity}

    def restore(self, state: dict[str, Any]) -> None:
        self.velocity = state["velocity"]
