"""Sensor of the synthetic world: an endless stream of newly rendered frames under one condition."""

import time
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from sim import world
from vehicle_agent.sensors import Frames, SensorConfig, SensorError


class Config(SensorConfig):
    """Settings of a simulated drone camera."""

    kind: Literal["sim.sensors.drone_camera"] = "sim.sensors.drone_camera"
    seed: int = Field(default=0, ge=0)
    """Seed of the rendered frames; equal seeds give the same stream."""
    shares: tuple[float, ...] = ()
    """Relative frequency of each class, in the order of the model's classes; empty for equal ones."""
    condition: Literal["clear", "fog", "rain", "night", "snow", "dust", "motion_blur"] = "clear"
    """Weather or light that the frames are rendered in."""
    severity: float = Field(default=0.6, ge=0, le=1)
    """Strength of the condition: 0 leaves a frame clear, 1 is the worst."""
    size: int = Field(default=64, ge=16, le=512)
    """Height and width of a frame, pixels."""
    labels: Literal["classes", "pose"] = "classes"
    """Label of each frame: its class, or the camera's altitude (m) and heading (degrees)."""

    @model_validator(mode="after")
    def _shares_fit(self) -> "Config":
        if self.shares and (len(self.shares) != len(world.CLASSES) or min(self.shares) < 0):
            raise ValueError(f"shares: expected none or {len(world.CLASSES)} that are not negative")
        return self

    def build(self, classes: tuple[str, ...]) -> "DroneCamera":
        known = world.CLASSES if self.labels == "classes" else world.POSE
        if classes != known:
            raise SensorError(f"the drone world shows {known}, the model has {classes}")
        return DroneCamera(self)


class DroneCamera:
    """Sensor that renders each frame when it is read; frames are uint8 [N, size, size, 3]."""

    def __init__(self, config: Config) -> None:
        self.config = config
        shares = np.array(config.shares or [1.0] * len(world.CLASSES))
        self.shares = shares / shares.sum()
        self.rng = np.random.default_rng(config.seed)

    @property
    def num_frames(self) -> int | None:
        return None

    def skip(self, count: int) -> None:
        if count:
            self.rng = np.random.default_rng([self.config.seed, count])

    def read(self, count: int) -> Frames:
        labels = self.rng.choice(len(self.shares), count, p=self.shares)
        seed = int(self.rng.integers(2**31))
        clear = world.render(labels, seed=seed, size=self.config.size)
        images = world.under(clear, self.config.condition, self.config.severity, seed=seed)
        now = time.time()
        if self.config.labels == "pose":
            return Frames(images, world.poses(labels, seed=seed), now, now)
        return Frames(images, labels.astype(np.int64), now, now)
