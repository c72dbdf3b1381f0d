"""Where trainings are worked out while they last in virtual time: begun at the start, asked for at the end.

What one gives follows from its arguments alone, so it may be worked out at any moment in between.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from vehicle_agent.agent import Training
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining

Result = Callable[[], LocalTraining]
"""Asked for once, or never if the vehicle is gone by then."""


class Trainings(Protocol):
    def begin(self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int) -> Result:
        """Of this trainer no other training is begun until the result was asked for, or never will be."""
        ...


class InTurn:
    """One after the other, when its result is asked for. Trainings of vehicles that vanish cost nothing."""

    def begin(self, trainer: Training, start: np.ndarray, frames: Frames, *, seed: int) -> Result:
        return lambda: trainer.train(start, frames, seed=seed)
