"""When a vehicle is switched on and may train. Time 0 is a midnight."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from

DAY_S = 86_400.0
Window = tuple[float, float]
"""From, to; seconds."""


class AvailabilityConfig(PluginConfig):
    def windows(self, seed: int) -> Iterator[Window]:
        """Of one vehicle: endless or not, in order, without overlap."""
        raise NotImplementedError


AnyAvailability = Annotated[
    SerializeAsAny[AvailabilityConfig], chosen_from("sim.fleet.availability")
]
