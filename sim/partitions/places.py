"""Partition by place: vehicles with neighbouring numbers share a place, and with it its class shares."""

from typing import Literal

import numpy as np
from pydantic import Field

from sim.partitions import PartitionConfig
from sim.partitions._label_skew import dirichlet_shares


class Config(PartitionConfig):
    """Draw the class shares of each place, and give them to all of its vehicles."""

    kind: Literal["places"] = "places"
    places: int = Field(default=10, ge=1)
    """Number of places, each with equally many vehicles; the weather of kind `places` has the same ones."""
    alpha: float = Field(default=0.3, gt=0)
    """Dirichlet concentration of a place's classes; small values make places differ more."""

    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        drawn = dirichlet_shares(self.places, num_classes, self.alpha, seed=seed)
        return drawn[np.arange(num_vehicles) * self.places // num_vehicles]
