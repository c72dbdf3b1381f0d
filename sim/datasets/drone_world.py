"""Data set of the synthetic drone world: every vehicle's camera renders new frames."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sim import world
from sim.datasets import DatasetConfig, Weather
from sim.partitions import AnyPartition
from sim.partitions.dirichlet import Config as Dirichlet


class Config(DatasetConfig):
    """Settings of the synthetic drone world."""

    former_names: ClassVar = {"num_factory": "num_initial", "shares": "partition"}
    """Former names of settings, which are still accepted."""

    kind: Literal["drone_world"] = "drone_world"
    alpha: float = Field(default=0.3, gt=0)
    """Dirichlet concentration of each vehicle's classes; smaller values are more skewed."""
    partition: AnyPartition | None = None
    """Partition of the classes over the vehicles; None uses Dirichlet shares with `alpha`."""
    num_initial: int = Field(default=3000, ge=10)
    """Clear frames that the initial model is fitted on."""
    num_held_out: int = Field(default=600, ge=10)
    """Held-out frames that each release is scored on."""
    num_fleet: int = Field(default=10_000, ge=100)
    """Frames that the vehicles of a comparison share; in other runs a camera never shows a frame twice."""
    size: int = Field(default=64, ge=16, le=512)
    """Height and width of a frame, pixels."""
    labels: Literal["classes", "pose"] = "classes"
    """Label of each frame: its class, or the camera's altitude (m) and heading (degrees)."""

    def check(self, classes: tuple[str, ...]) -> None:
        known = world.CLASSES if self.labels == "classes" else world.POSE
        if classes != known:
            where = "model.classes" if self.labels == "classes" else "model.task.numbers"
            raise ValueError(f"{where}: the drone world shows {list(known)}, got {list(classes)}")
        if self.partition is not None:
            self.partition.shares(1, len(world.CLASSES), seed=0)

    def initial_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self._frames(self.num_initial, seed + 1)

    def fleet_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self._frames(self.num_fleet, seed + 3)

    def test_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self._frames(self.num_held_out, seed + 2)

    def sensors(self, weathers: list[Weather], folder: Path, *, seed: int) -> list[dict[str, Any]]:
        kind = self.partition or Dirichlet(alpha=self.alpha)
        shares = kind.shares(len(weathers), len(world.CLASSES), seed=seed)
        return [
            {
                "kind": "sim.sensors.drone_camera",
                "seed": seed + 1000 + number,
                "shares": [round(float(s), 6) for s in row],
                "condition": weather.condition,
                "severity": weather.severity,
                "size": self.size,
                "labels": self.labels,
            }
            for number, (weather, row) in enumerate(zip(weathers, shares, strict=True))
        ]

    def _frames(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.random.default_rng(seed).permutation(np.arange(count) % len(world.CLASSES))
        images = world.render(labels, seed=seed, size=self.size)
        if self.labels == "pose":
            return images, world.poses(labels, seed=seed)
        return images, labels.astype(np.int64)
