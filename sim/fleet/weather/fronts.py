"""Fronts that move across the fleet: bands of weather, one beside the other, over vehicles from west to east.

A vehicle's data drifts as they pass: what it learned from this morning is not what it meets tonight.
"""

from typing import Literal

from pydantic import Field

from sim.datasets import Weather
from sim.fleet.weather import WeatherConfig


class Config(WeatherConfig):
    kind: Literal["fronts"] = "fronts"
    hours: float = Field(default=24.0, gt=0)
    """Until all of them have passed over a vehicle, and the first one comes again."""

    def at(
        self, weathers: tuple[Weather, ...], number: int, num_vehicles: int, now_s: float
    ) -> Weather:
        # Number 0 is the farthest west; what is there now is farther east later.
        west = number / num_vehicles - now_s / (3600 * self.hours)
        return weathers[int((west % 1.0) * len(weathers)) % len(weathers)]
