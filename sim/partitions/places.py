"""By place: all vehicles of a place meet the same, as drawn for the place; neighbours by number share one."""

from typing import Literal

import numpy as np
from pydantic import Field

from sim.partitions import PartitionConfig
from sim.partitions._label_skew import dirichlet_shares


class Config(PartitionConfig):
    kind: Literal["places"] = "places"
    places: int = Field(default=10, ge=1)
    """As many vehicles in each. With the weather of kind `places` they are the same ones."""
    alpha: float = Field(default=0.3, gt=0)
    """Dirichlet concentration of a place's classes: boats at the coast, pylons inland."""

    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        drawn = dirichlet_shares(self.places, num_classes, self.alpha, seed=seed)
        return drawn[np.arange(num_vehicles) * self.places // num_vehicles]
