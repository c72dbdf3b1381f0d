"""Data sets of simulated fleets: frames for the initial model, for each vehicle's sensor, and held out."""

from collections.abc import Mapping
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
    """One weather or light condition at one severity."""

    condition: Condition
    """Weather or light that the frames are rendered in."""
    severity: float = Field(default=0.6, ge=0, le=1)
    """Strength of the condition: 0 leaves a frame clear, 1 is the worst."""


class DatasetConfig(PluginConfig):
    """Settings of one data set; settings and seed determine every frame."""

    @property
    def idle(self) -> Mapping[str, str]:
        """A partition takes the place of Dirichlet shares."""
        has_partition = getattr(self, "partition", None) is not None
        return {"alpha": "`partition` says who meets which classes"} if has_partition else {}

    def check(self, classes: tuple[str, ...]) -> None:
        """Raises ValueError or SensorError if a model with these classes cannot learn from the data set."""
        raise NotImplementedError

    def initial_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Clear frames that the initial model is fitted on: uint8 [N, H, W, 3], labels int64 [N]."""
        raise NotImplementedError

    def fleet_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Clear frames of all vehicles of a comparison: uint8 [N, H, W, 3], labels int64 [N]."""
        raise NotImplementedError

    def test_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Clear held-out frames: uint8 [N, H, W, 3], labels int64 [N]."""
        raise NotImplementedError

    def sensors(self, weathers: list[Weather], folder: Path, *, seed: int) -> list[dict[str, Any]]:
        """Section `sensor` of each vehicle's settings, one vehicle per weather; large data go to `folder`."""
        raise NotImplementedError

    def held_out(self, weathers: list[Weather], *, seed: int) -> HeldOut:
        """Held-out frames, with every vehicle's weather equally often."""
        images, labels = self.test_frames(seed=seed)
        return weathered(images, labels, weathers, seed=seed)


def checked(dataset: DatasetConfig, classes: tuple[str, ...], source: str) -> None:
    """Check that a model with these classes can learn from the data set. Raises ConfigError or
    SensorError.
    """
    try:
        dataset.check(classes)
    except ValueError as unfit:
        raise _as_settings(unfit, source) from unfit


def dealt(
    dataset: DatasetConfig, weathers: list[Weather], folder: Path, *, seed: int, source: str
) -> list[dict[str, Any]]:
    """Section `sensor` of each vehicle's settings. Raises ConfigError if the data cannot be partitioned over
    that many vehicles, and SensorError.
    """
    try:
        return dataset.sensors(weathers, folder, seed=seed)
    except ValueError as unfit:
        raise _as_settings(unfit, source) from unfit


def _as_settings(unfit: ValueError, source: str) -> FleetflError:
    if isinstance(unfit, SensorError):  # its message already names the file
        return unfit
    return ConfigError(f"{source}: sim.dataset: {unfit}")


AnyDataset = Annotated[SerializeAsAny[DatasetConfig], chosen_from("sim.datasets")]


def weathered(
    images: np.ndarray, labels: np.ndarray, weathers: list[Weather], *, seed: int
) -> HeldOut:
    """Put clear frames under the weathers in turn: frame i gets weather i mod len(weathers)."""
    images, turn = images.copy(), np.arange(len(images)) % len(weathers)
    for number, weather in enumerate(weathers):
        mine = turn == number
        images[mine] = world.under(
            images[mine], weather.condition, weather.severity, seed=seed + number
        )
    conditions = np.array([w.condition for w in weathers])[turn]
    return HeldOut(images, labels, conditions)
