"""One condition a place, for good; a place's vehicles are neighbours by number."""

from typing import Literal

from pydantic import Field

from sim.datasets import Weather
from sim.fleet.weather import WeatherConfig


class Config(WeatherConfig):
    kind: Literal["places"] = "places"
    places: int = Field(default=10, ge=1)
    """Places, with as many vehicles in each."""

    def at(
        self, weathers: tuple[Weather, ...], number: int, num_vehicles: int, now_s: float
    ) -> Weather:
        return weathers[(number * self.places // num_vehicles) % len(weathers)]
