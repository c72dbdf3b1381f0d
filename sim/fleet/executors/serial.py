"""One after the other, each when its result is asked for. Trainings of vehicles that vanish cost nothing."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np

from sim.fleet.executors import ExecutorConfig, Result, TrainingContext
from vehicle_agent.sensors import Frames
from vehicle_agent.training import Training


class Config(ExecutorConfig):
    kind: Literal["serial"] = "serial"

    def running(self, context: TrainingContext) -> AbstractContextManager["Serial"]:
        return nullcontext(Serial())


class Serial:
    def begin(self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int) -> Result:
        return lambda: trainer.train(start, frames, seed=seed)
