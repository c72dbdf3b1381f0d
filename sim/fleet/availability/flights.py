"""On while it flies: some flights a day, by daylight or in hours one sets; off in between and at night."""

import math
from collections.abc import Iterator
from itertools import count
from typing import Literal

from pydantic import Field, model_validator

from sim.fleet.availability import DAY_S, AvailabilityConfig, Window
from sim.fleet.dice import normal, uniform


class Config(AvailabilityConfig):
    kind: Literal["flights"] = "flights"
    a_day: int = Field(default=4, ge=1, le=48)
    """Each falls into a part of its own of the day's hours."""
    minutes: float = Field(default=25.0, gt=0)
    """Median length of a flight."""
    sigma: float = Field(default=0.3, ge=0)
    """Sigma of a flight's log-normal length."""
    from_hour: float = Field(default=6.0, ge=0, lt=24)
    """Hour of the day at which flying begins."""
    to_hour: float = Field(default=20.0, gt=0, le=24)
    """Hour of the day at which flying ends; later than `from_hour`."""

    @model_validator(mode="after")
    def _is_a_day(self) -> "Config":
        if self.to_hour <= self.from_hour:
            raise ValueError(f"to_hour {self.to_hour:g}, expected more than {self.from_hour:g}")
        return self

    def windows(self, seed: int) -> Iterator[Window]:
        part = (self.to_hour - self.from_hour) * 3600 / self.a_day
        for day in count():
            for nth in range(self.a_day):
                begin = day * DAY_S + self.from_hour * 3600 + nth * part
                length = 60 * self.minutes * math.exp(self.sigma * normal(seed, day, nth))
                length = min(length, part)
                start = begin + (part - length) * uniform(seed, day, nth, "start")
                yield start, start + length
