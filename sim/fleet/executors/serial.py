"""One after the other, each when its result is asked for. Trainings of vehicles that vanish cost nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

import numpy as np

from sim.fleet.executors import ExecutorConfig, Result
from vehicle_agent.agent import Training
from vehicle_agent.sensors import Frames

if TYPE_CHECKING:
    from sim.fleet.scenario import Scenario


class Config(ExecutorConfig):
    kind: Literal["serial"] = "serial"

    def running(self, scenario: Scenario) -> AbstractContextManager[Serial]:
        return nullcontext(Serial())


class Serial:
    def begin(self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int) -> Result:
        return lambda: trainer.train(start, frames, seed=seed)
