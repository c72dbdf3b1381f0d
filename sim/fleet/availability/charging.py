"""On while it charges in the depot, once a night."""

from collections.abc import Iterator
from itertools import count
from typing import Literal

from pydantic import Field

from sim.fleet.availability import DAY_S, AvailabilityConfig, Window
from sim.fleet.dice import uniform


class Config(AvailabilityConfig):
    kind: Literal["charging"] = "charging"
    from_hour: float = Field(default=21.0, ge=0, lt=24)
    """Hour at which the first vehicles come in; the last do so `spread_hours` later."""
    hours: float = Field(default=8.0, gt=0, le=20)
    """Length of a night's charging."""
    spread_hours: float = Field(default=3.0, ge=0, le=4)
    """Hours over which the vehicles of the fleet come in."""

    def windows(self, seed: int) -> Iterator[Window]:
        # The night before day 0 reaches into it.
        for day in count(-1):
            late = self.spread_hours * uniform(seed, day)
            begin = day * DAY_S + (self.from_hour + late) * 3600
            end = begin + self.hours * 3600
            if end > 0:
                yield max(begin, 0.0), end
