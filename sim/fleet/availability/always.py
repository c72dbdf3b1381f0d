"""Always on."""

import math
from collections.abc import Iterator
from typing import Literal

from sim.fleet.availability import AvailabilityConfig, Window


class Config(AvailabilityConfig):
    kind: Literal["always"] = "always"

    def windows(self, seed: int) -> Iterator[Window]:
        yield 0.0, math.inf
