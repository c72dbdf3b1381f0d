"""Which weather a vehicle flies through, and when. It draws nothing."""

from typing import Annotated

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from
from sim.datasets import Weather


class WeatherConfig(PluginConfig):
    def at(
        self, weathers: tuple[Weather, ...], number: int, num_vehicles: int, now_s: float
    ) -> Weather:
        """That of vehicle `number`."""
        raise NotImplementedError


AnyWeather = Annotated[SerializeAsAny[WeatherConfig], chosen_from("sim.fleet.weather")]
