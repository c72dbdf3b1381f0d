"""What a simulated fleet sees: clear frames for the factory, each vehicle's sensor, held-out frames."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, SerializeAsAny

from fleetfl import FleetflError
from fleetfl.config import ConfigError, Section
from fleetfl.evaluation.held_out import HeldOut
from fleetfl.plugins import PluginConfig, chosen_from
from sim import world
from vehicle_agent.sensors import SensorError

Condition = Literal["clear", "fog", "rain", "night", "snow", "dust", "motion_blur"]


class Weather(Section):
    """One condition at one severity."""

    condition: Condition
    """Weather or light that the frames are rendered in."""
    severity: float = Field(default=0.6, ge=0, le=1)
    """Strength of the condition: 0 leaves a frame clear, 1 is the worst."""


class DatasetConfig(PluginConfig):
    """Settings of one data set. All that it gives follows from them and the seed."""

    def check(self, classes: tuple[str, ...]) -> None:
        """Raises ValueError or SensorError if a model of these classes cannot learn from it."""
        raise NotImplementedError

    def initial_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Clear-weather frames for the factory's head: uint8 [N, H, W, 3], int64 [N]."""
        raise NotImplementedError

    def fleet_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """What a comparison's vehicles hold together, before the weather: uint8 [N, H, W, 3], int64 [N]."""
        raise NotImplementedError

    def test_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Held-out frames before the weather: uint8 [N, H, W, 3], int64 [N]."""
        raise NotImplementedError

    def sensors(self, weathers: list[Weather], folder: Path, *, seed: int) -> list[dict[str, Any]]:
        """For each vehicle, one a weather, the `sensor` table of its file; big parts go to `folder`."""
        raise NotImplementedError

    def held_out(self, weathers: list[Weather], *, seed: int) -> HeldOut:
        """Frames nobody trains on, every vehicle's weather equally often."""
        images, labels = self.test_frames(seed=seed)
        return weathered(images, labels, weathers, seed=seed)


def checked(dataset: DatasetConfig, classes: tuple[str, ...], source: str) -> None:
    """Raises ConfigError or SensorError if a model of these classes cannot learn from it."""
    try:
        dataset.check(classes)
    except ValueError as unfit:
        raise _as_settings(unfit, source) from unfit


def dealt(
    dataset: DatasetConfig, weathers: list[Weather], folder: Path, *, seed: int, source: str
) -> list[dict[str, Any]]:
    """The data set's `sensors`. Raises ConfigError if there is no dealing it to so many, and SensorError."""
    try:
        return dataset.sensors(weathers, folder, seed=seed)
    except ValueError as unfit:
        raise _as_settings(unfit, source) from unfit


def _as_settings(unfit: ValueError, source: str) -> FleetflError:
    if isinstance(unfit, SensorError):  # it names its file
        return unfit
    return ConfigError(f"{source}: sim.dataset: {unfit}")


AnyDataset = Annotated[SerializeAsAny[DatasetConfig], chosen_from("sim.datasets")]


def weathered(
    images: np.ndarray, labels: np.ndarray, weathers: list[Weather], *, seed: int
) -> HeldOut:
    """Clear frames dealt to the weathers in turn: frame i meets weather i mod len(weathers)."""
    images, turn = images.copy(), np.arange(len(images)) % len(weathers)
    for number, weather in enumerate(weathers):
        mine = turn == number
        images[mine] = world.under(
            images[mine], weather.condition, weather.severity, seed=seed + number
        )
    conditions = np.array([w.condition for w in weathers])[turn]
    return HeldOut(images, labels.astype(np.int64), conditions)
