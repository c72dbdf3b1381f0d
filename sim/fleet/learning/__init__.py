"""What a virtual fleet learns: a vector, each vehicle's frames and trainer, and how good a version is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.config import ConfigError
from fleetfl.models import ModelConfig
from fleetfl.plugins import PluginConfig, chosen_from
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.vectors import Layout
from sim.datasets import DatasetConfig, Weather
from sim.fleet.weather import WeatherConfig
from vehicle_agent.ports import Sums
from vehicle_agent.sensors import SensorSource
from vehicle_agent.training import Config as TrainerConfig
from vehicle_agent.training import Training


@dataclass(frozen=True)
class LearningContext:
    """Everything that a kind of learning may know of the fleet that it is for."""

    fleet: str
    seed: int
    """Deals data and chance to the vehicles."""
    initial_seed: int
    """Makes version 0 and the held-out frames, the same for all fleets of a comparison."""
    num_vehicles: int
    model: ModelConfig
    trainer: TrainerConfig
    dataset: DatasetConfig
    weathers: tuple[Weather, ...]
    weather: WeatherConfig
    initial: Path | None
    """Adapter file of version 0, as `server.initial`; None leaves version 0 to the learning."""
    held_out: Path | None
    """Labelled frames to score versions on, as `server.held_out`; None leaves them to the learning."""
    folder: Path
    """Keeps what takes long to make and does not depend on `seed`."""
    say: Callable[[str], None]
    """Told of steps that take a while."""


@dataclass(frozen=True)
class Learner:
    """A vehicle's own frames and trainer."""

    sensor: SensorSource
    trainer: Training
    sums: Sums | None = None
    """Sums features for a head in closed form; None where there is no such head."""


@dataclass(frozen=True)
class Score:
    """Of one version on frames that nobody trains on."""

    accuracy: float
    by_condition: dict[str, float]
    by_condition_and_class: dict[str, dict[int, float]]
    """To weigh by what one vehicle meets."""


class Learning(Protocol):
    layout: Layout
    initial: np.ndarray
    """Version 0, float32 [P]."""
    num_parameters: int
    """Of the whole model."""
    frames_per_update: int
    images_per_update: float
    """What a training costs, in whole images."""

    def learner(self, number: int) -> Learner:
        """The frames and trainer of vehicle `number`."""
        ...

    def class_shares(self, number: int) -> list[float]:
        """How often a vehicle meets each class; empty if there are none."""
        ...

    def score(self, vector: np.ndarray) -> Score: ...


def given_initial(path: Path, layout: Layout) -> np.ndarray:
    """Version 0, float32 [P], from an adapter file. Raises ConfigError for another layout."""
    found, vector = read_adapter(path)
    unlike = layout.objection(found.fingerprint, found.parts, ours="the fleet's")
    if unlike and found.fingerprint != layout.plain.fingerprint:
        raise ConfigError(f"server.initial: {path} does not fit the fleet's model: {unlike}")
    return vector


class LearningConfig(PluginConfig):
    """Settings of one kind of learning."""

    passes_over: ClassVar[Mapping[str, str]] = {}
    """Settings of a virtual fleet, by path, that this kind does not use, and the reason."""

    def build(self, context: LearningContext) -> Learning:
        """Make the learning of one fleet. May take a while, which it tells of by `context.say`."""
        raise NotImplementedError


AnyLearning = Annotated[SerializeAsAny[LearningConfig], chosen_from("sim.fleet.learning")]
