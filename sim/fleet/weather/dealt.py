"""One condition a vehicle, dealt in turn, for good: each knows its own weather and no other."""

from typing import Literal

from sim.datasets import Weather
from sim.fleet.weather import WeatherConfig


class Config(WeatherConfig):
    kind: Literal["dealt"] = "dealt"

    def at(
        self, weathers: tuple[Weather, ...], number: int, num_vehicles: int, now_s: float
    ) -> Weather:
        return weathers[number % len(weathers)]
