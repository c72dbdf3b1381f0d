"""What a virtual fleet learns: a vector, each vehicle's frames and trainer, and how good a version is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from
from fleetfl.vectors import Layout
from vehicle_agent.agent import Training
from vehicle_agent.sensors import SensorSource

if TYPE_CHECKING:
    from sim.fleet.scenario import Scenario


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

    def learner(self, number: int) -> tuple[SensorSource, Training]:
        """A vehicle's own."""
        ...

    def class_shares(self, number: int) -> list[float]:
        """How often a vehicle meets each class; empty if there are none."""
        ...

    def score(self, vector: np.ndarray) -> Score: ...


class LearningConfig(PluginConfig):
    def build(self, scenario: Scenario, folder: Path, say: Callable[[str], None]) -> Learning:
        """May take a while, which it tells of by `say`; what it makes for later goes to `folder`."""
        raise NotImplementedError


AnyLearning = Annotated[SerializeAsAny[LearningConfig], chosen_from("sim.fleet.learning")]
