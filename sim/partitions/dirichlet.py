"""Label skew: each vehicle's shares are drawn by themselves (arXiv:1909.06335). Smaller alpha, more skew."""

from typing import Literal

import numpy as np
from pydantic import Field

from sim.partitions import PartitionConfig
from sim.partitions._label_skew import dirichlet_shares


class Config(PartitionConfig):
    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(default=0.3, gt=0)
    """Concentration; small values give each vehicle few classes, large ones give all."""

    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        return dirichlet_shares(num_vehicles, num_classes, self.alpha, seed=seed)
