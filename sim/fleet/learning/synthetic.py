"""No model and no images: every vehicle pulls the vector towards a point of its own near a common one.

A training takes microseconds, so that what is measured is the fleet. Accuracy is 1 / (1 + the squared
distance to the common point, of which 1 is where it starts): from a half to near 1.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from fleetfl.vectors import Layout
from sim.fleet.learning import Learner, LearningConfig, LearningContext, Score, given_initial
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining

SUMS = ("vehicle.agent.sums_of_frames", "vehicle.agent.sums_wait_s")
"""Settings of the features that a head in closed form is solved from."""


class Config(LearningConfig):
    passes_over: ClassVar = {
        **dict.fromkeys(("model", "server.closed_form", *SUMS), "synthetic learning has no model"),
        **dict.fromkeys(
            ("sim.dataset", "sim.weathers", "sim.weather", "server.held_out"),
            "synthetic learning looks at no frames",
        ),
        "vehicle.trainer": "synthetic learning has `rate` and `images` of its own",
    }
    """Settings of a virtual fleet, by path, that this kind does not use, and the reason."""

    kind: Literal["synthetic"] = "synthetic"
    size: int = Field(default=256, ge=1)
    """Values of the vector."""
    heterogeneity: float = Field(default=1.0, ge=0)
    """Distance of the vehicles' own points from the common one, which is 1 from the start."""
    noise: float = Field(default=0.1, ge=0)
    """Length of what each training adds by chance."""
    rate: float = Field(default=0.3, gt=0, le=1)
    """Share of the way to its own point that a training goes."""
    images: int = Field(default=320, ge=1)
    """Images that a training would look at."""

    def build(self, context: LearningContext) -> "Synthetic":
        made = Synthetic(self, seed=context.seed)
        if context.initial is not None:
            made.initial = given_initial(context.initial, made.layout)
        return made


class Synthetic:
    num_parameters = 0

    def __init__(self, config: Config, *, seed: int) -> None:
        self.config, self.seed = config, seed
        self.layout = Layout.flat(config.size)
        self.initial = np.zeros(config.size, np.float32)
        self.common = _direction(config.size, seed)
        self.frames_per_update = 1
        self.images_per_update = float(config.images)
        self.sensor = _Nothing()

    def learner(self, number: int) -> Learner:
        return Learner(self.sensor, Pull(self, number))

    def class_shares(self, number: int) -> list[float]:
        return []

    def score(self, vector: np.ndarray) -> Score:
        away = vector.astype(np.float64) - self.common
        return Score(1.0 / (1.0 + float(away @ away)), {}, {})


class Pull:
    """A vehicle's Training. Keeps no vector while it does not train."""

    def __init__(self, about: Synthetic, number: int) -> None:
        self.about, self.number = about, number

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        config, about = self.about.config, self.about
        own = _direction(config.size, about.seed + 1_000_003 * (self.number + 1))
        towards = about.common + np.float32(config.heterogeneity) * own - start
        noise = np.float32(config.noise) * _direction(config.size, seed)
        delta = np.float32(config.rate) * towards + noise
        return LocalTraining(delta, config.images, 1, float(towards @ towards))


class _Nothing:
    num_frames: int | None = None
    frames = Frames(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64), 0.0, 0.0)

    def read(self, count: int) -> Frames:
        return self.frames

    def skip(self, count: int) -> None:
        return


def _direction(size: int, seed: int) -> np.ndarray:
    """float32 [size] of length 1."""
    vector = np.random.default_rng(seed).standard_normal(size, np.float32)
    return vector / np.float32(np.sqrt(np.float64(vector @ vector)))
