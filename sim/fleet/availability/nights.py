"""On by day and off at night, every vehicle in the hours of its own time zone."""

from collections.abc import Iterator
from itertools import count
from typing import Literal

from pydantic import Field

from sim.fleet.availability import DAY_S, AvailabilityConfig, Window
from sim.fleet.dice import uniform


class Config(AvailabilityConfig):
    kind: Literal["nights"] = "nights"
    hours: float = Field(default=14.0, gt=0, lt=24)
    """On in a day."""
    time_zones: int = Field(default=1, ge=1, le=24)
    """The fleet is spread over so many, an hour apart."""
    from_hour: float = Field(default=7.0, ge=0, lt=24)
    """Hour at which the westernmost vehicle is switched on."""

    def windows(self, seed: int) -> Iterator[Window]:
        zone = int(uniform(seed, "zone") * self.time_zones)
        for day in count(-1):
            begin = day * DAY_S + (self.from_hour + zone) * 3600
            end = begin + self.hours * 3600
            if end > 0:
                yield max(begin, 0.0), end
