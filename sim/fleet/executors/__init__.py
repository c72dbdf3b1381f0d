"""Where trainings are worked out while they last in virtual time: begun at the start, asked for at the end.

What one gives follows from its arguments alone, so it may be worked out at any moment in between, with others
or on another core.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.models import ModelConfig
from fleetfl.plugins import PluginConfig, chosen_from
from vehicle_agent.sensors import Frames
from vehicle_agent.training import Config as TrainerConfig
from vehicle_agent.training import LocalTraining, Training


@dataclass(frozen=True)
class TrainingContext:
    """Everything that an executor may know of the trainings that it is for."""

    learning: str
    """Kind of the learning."""
    model: ModelConfig
    trainer: TrainerConfig
    seed: int


Result = Callable[[], LocalTraining]
"""Asked for once, or never if the vehicle is gone by then."""


class Executor(Protocol):
    def begin(self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int) -> Result:
        """Of this trainer no other training is begun until the result was asked for, or never will be."""
        ...


class ExecutorConfig(PluginConfig):
    def running(self, context: TrainingContext) -> AbstractContextManager[Executor]:
        """For one run. Raises ConfigError if the scenario's learning is not for it."""
        raise NotImplementedError


FORMER_KINDS = {"in_turn": "serial", "together": "stacked"}
"""Former name -> name of the kinds that were renamed."""

AnyExecutor = Annotated[SerializeAsAny[ExecutorConfig], chosen_from("sim.fleet.executors")]
