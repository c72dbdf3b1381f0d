"""Settings that several kinds of simulated fleets share."""

from pathlib import Path

from pydantic import Field

from actors.config import ServerConfig
from fleetfl.fleet_config import FleetConfig
from sim.datasets import AnyDataset, Weather


class SceneConfig(FleetConfig):
    """Frames that simulated vehicles see, and the folder of what comes of it."""

    runs: Path = Path("runs")
    """Results go to RUNS/FLEET."""
    dataset: AnyDataset
    """Data set that the fleet sees."""
    weathers: tuple[Weather, ...] = Field(min_length=1)
    """Weathers of the vehicles, dealt to them in turn."""


class CrewConfig(SceneConfig):
    """A number of simulated vehicles and the frames that they see."""

    num_vehicles: int = Field(default=8, ge=1, le=512)
    """Vehicles in the fleet."""

    def weather_of_each(self) -> list[Weather]:
        """The weather of each vehicle, in their order."""
        return [self.weathers[i % len(self.weathers)] for i in range(self.num_vehicles)]


def within_fleet(server: ServerConfig, num_vehicles: int) -> ServerConfig:
    """The server's settings with a head that waits for no more vehicles than the fleet has."""
    head = server.closed_form
    if head is None:
        return server
    mine = head.model_copy(update={"vehicles": min(head.vehicles, num_vehicles)})
    return server.model_copy(update={"closed_form": mine})
