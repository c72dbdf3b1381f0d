"""Partition by label skew: each vehicle's class shares are a Dirichlet draw (arXiv:1909.06335)."""

from typing import Literal

import numpy as np
from pydantic import Field

from sim.partitions import PartitionConfig
from sim.partitions._label_skew import dirichlet_shares


class Config(PartitionConfig):
    """Draw each vehicle's class shares independently."""

    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(default=0.3, gt=0)
    """Dirichlet concentration; small values give each vehicle few classes, large ones all classes."""

    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        return dirichlet_shares(num_vehicles, num_classes, self.alpha, seed=seed)
