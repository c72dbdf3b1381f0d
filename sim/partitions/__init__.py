"""Partitions: the frequency of each class at each vehicle. They know nothing of images."""

from typing import Annotated

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from


class PartitionConfig(PluginConfig):
    """Settings of one kind of partition."""

    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        """Class shares of each vehicle, float64 [V, C], rows summing to 1. Raises ValueError if the settings
        need more classes than there are.
        """
        raise NotImplementedError


AnyPartition = Annotated[SerializeAsAny[PartitionConfig], chosen_from("sim.partitions")]
