"""Data set of labelled photographs from an .npz, such as CIFAR-10, partitioned and put under weather."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.datasets import DatasetConfig, Weather
from sim.partitions import AnyPartition
from sim.partitions._label_skew import dirichlet_rows, rows_by_shares
from vehicle_agent.sensors.labelled_npz import read_archive


class Config(DatasetConfig):
    """Settings of a data set of photographs."""

    former_names: ClassVar = {"factory_rows": "initial_rows", "shares": "partition"}
    """Former names of settings, which are still accepted."""

    kind: Literal["photographs"] = "photographs"
    path: Path
    """NumPy archive with x_train, x_test: uint8 [N, H, W, 3], and y_train, y_test: integers [N]."""
    initial_rows: tuple[int, int] = (0, 10_000)
    """Training images that the initial model is fitted on: first row, and one past the last."""
    fleet_rows: tuple[int, int] = (10_000, 20_000)
    """Training images that the vehicles share: first row, and one past the last."""
    alpha: float = Field(default=0.3, gt=0)
    """Dirichlet concentration of the labels over the vehicles; smaller values are more skewed."""
    partition: AnyPartition | None = None
    """Partition of the classes over the vehicles; None uses Dirichlet shares with `alpha`."""

    def check(self, classes: tuple[str, ...]) -> None:
        parts = [self._train(rows)[1] for rows in (self.initial_rows, self.fleet_rows)]
        for labels in (*parts, self.test_frames(seed=0)[1]):
            if not len(labels):
                raise ValueError(f"{self.path} has no held-out frames: x_test is empty")
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < 0 or highest >= len(classes):
                raise ValueError(
                    f"{self.path} has labels {lowest} to {highest}, model.classes are {len(classes)}"
                )

    def initial_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self._train(self.initial_rows)

    def fleet_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return self._train(self.fleet_rows)

    def test_frames(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return read_archive(self.path, "x_test", "y_test")

    def sensors(self, weathers: list[Weather], folder: Path, *, seed: int) -> list[dict[str, Any]]:
        _, labels = self.fleet_frames(seed=seed)
        folder.mkdir(parents=True, exist_ok=True)
        tables = []
        shards = self._partitioned(labels, len(weathers), seed=seed)
        for number, (weather, rows) in enumerate(zip(weathers, shards, strict=True)):
            file = folder / f"rows_{number:03d}.npy"
            np.save(file, rows + self.fleet_rows[0])
            source = {
                "kind": "labelled_npz",
                "path": str(self.path.absolute()),
                "images": "x_train",
                "labels": "y_train",
                "rows": str(file.absolute()),
                "seed": seed + 1000 + number,
            }
            tables.append(
                {
                    "kind": "sim.sensors.weathered",
                    "source": source,
                    "condition": weather.condition,
                    "severity": weather.severity,
                    "seed": seed + 2000 + number,
                }
            )
        return tables

    def _partitioned(self, labels: np.ndarray, num_vehicles: int, *, seed: int) -> list[np.ndarray]:
        if self.partition is None:
            return dirichlet_rows(labels, num_vehicles, self.alpha, seed=seed)
        shares = self.partition.shares(num_vehicles, int(labels.max()) + 1, seed=seed)
        return rows_by_shares(labels, shares, seed=seed)

    def _train(self, rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = read_archive(self.path, "x_train", "y_train")
        first, last = rows
        if not 0 <= first < last <= len(images):
            raise ValueError(f"rows {first} to {last} of {len(images)} images in {self.path}")
        return images[first:last], labels[first:last]
