"""Labelled frames from a NumPy archive, in shuffled order, again and again."""

import time
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.storage.arrays import ArchiveError, ArchiveMissing, array_from, arrays_from
from vehicle_agent.sensors import Frames, SensorConfig, SensorError

MAX_EPOCHS_SKIPPED = 10_000
"""Of which the order is drawn again after a restart; with more, it begins anew."""


class Config(SensorConfig):
    kind: Literal["labelled_npz"] = "labelled_npz"
    path: Path
    """The archive (.npz) with the frames and their labels."""
    images: str = "images"
    """Name of the array uint8 [N, H, W, 3] in the archive."""
    labels: str = "labels"
    """Name of the integer array [N]."""
    rows: Path | None = None
    """A .npy of row numbers, int [M]: this vehicle's share. None takes all."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order of frames."""

    def build(self, classes: tuple[str, ...]) -> "LabelledNpz":
        return LabelledNpz(self, len(classes))


class LabelledNpz:
    def __init__(self, config: Config, num_classes: int) -> None:
        images, labels = read_archive(config.path, config.images, config.labels)
        if config.rows is not None:
            rows = _rows(config.rows, len(images))
            images, labels = images[rows], labels[rows]
        if not len(images):
            raise SensorError(f"{config.path}: no frames for this vehicle")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise SensorError(
                f"{config.path}: labels {labels.min()} to {labels.max()}, "
                f"the model has classes 0 to {num_classes - 1}"
            )
        self.images, self.labels = images, labels
        self.rng = np.random.default_rng(config.seed)
        self.queue = np.zeros(0, np.int64)

    @property
    def num_frames(self) -> int | None:
        return len(self.images)

    def skip(self, count: int) -> None:
        whole, rest = divmod(count, len(self.images))
        for _ in range(whole % MAX_EPOCHS_SKIPPED):
            self.rng.permutation(len(self.images))
        self._next_rows(rest)

    def _next_rows(self, count: int) -> np.ndarray:
        while len(self.queue) < count:
            self.queue = np.concatenate([self.queue, self.rng.permutation(len(self.images))])
        rows, self.queue = self.queue[:count], self.queue[count:]
        return rows

    def read(self, count: int) -> Frames:
        rows = self._next_rows(count)
        now = time.time()
        return Frames(self.images[rows], self.labels[rows], now, now)


def read_archive(path: Path, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, H, W, 3] and int64 [N] from an .npz. Raises SensorError naming what is wrong."""
    try:
        frames, numbers = arrays_from(path, images, labels)
    except ArchiveError as broken:
        raise SensorError(f"data file {broken}") from broken
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[3] != 3
        or 0 in frames.shape[1:]
    ):
        raise SensorError(
            f"{path}: {images} is {frames.dtype} {list(frames.shape)}, expected uint8 [N, H, W, 3]"
        )
    if numbers.shape != (len(frames),) or numbers.dtype.kind not in "iu":
        raise SensorError(
            f"{path}: {labels} is {numbers.dtype} {list(numbers.shape)}, "
            f"expected integers [{len(frames)}]"
        )
    return frames, numbers.astype(np.int64)


def _rows(path: Path, num_images: int) -> np.ndarray:
    try:
        rows = array_from(path)
    except ArchiveMissing as missing:
        raise SensorError(f"rows {path} cannot be read: it is missing") from missing
    except ArchiveError as broken:
        raise SensorError(f"rows {broken}") from broken
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise SensorError(f"rows {path}: {rows.dtype} {list(rows.shape)}, expected integers [M]")
    if len(rows) and not 0 <= rows.min() <= rows.max() < num_images:
        raise SensorError(f"rows {path}: {rows.min()} to {rows.max()} of {num_images} images")
    return rows
