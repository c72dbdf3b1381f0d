"""How often each vehicle meets each class: by label skew, by class, by place. They know no images."""

from typing import Annotated

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from


class PartitionConfig(PluginConfig):
    def shares(self, num_vehicles: int, num_classes: int, *, seed: int) -> np.ndarray:
        """float64 [V, C], rows summing to 1. Raises ValueError for more classes than there are."""
        raise NotImplementedError


AnyPartition = Annotated[SerializeAsAny[PartitionConfig], chosen_from("sim.partitions")]
