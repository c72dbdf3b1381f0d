"""Partition by class: each vehicle meets a few classes equally often, as in arXiv:1602.05629 with two."""

from typing import Literal

import numpy as np
from pydantic import Field

from sim.partitions import PartitionConfig


class Config(PartitionConfig):
    """Give each vehicle the same number of classes, in equal shares."""

    kind: Literal["classes"] = "classes"
    each: int = Field(default=2, ge=1)
    """Number of classes that each vehicle meets; fewer is more skew. Classes differ by at most one in the
    number of vehicles that meet them.
    """

    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        if self.each > num_classes:
            raise ValueError(f"each {self.each}, expected at most {num_classes} classes")
        order = np.random.default_rng(seed).permutation(num_classes)
        # Neighbours by number overlap as little as they can: the classes lie on a ring.
        first = np.arange(num_vehicles)[:, None] * self.each
        met = order[(first + np.arange(self.each)) % num_classes]
        shares = np.zeros((num_vehicles, num_classes))
        np.put_along_axis(shares, met, 1.0 / self.each, axis=1)
        return shares
