"""Held-out frames: labelled frames that no vehicle trains on, each with its weather condition."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleetfl import FleetflError
from fleetfl.storage.arrays import ArchiveError, ArchiveMissing, arrays_from
from fleetfl.tasks import Task


class HeldOutError(FleetflError, ValueError):
    """A file without usable held-out frames; names it and what was expected."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out frames with labels and weather conditions."""

    images: np.ndarray
    """Frames, uint8 [N, H, W, 3]."""
    labels: np.ndarray
    """Targets of the task: of classification int64 [N], positions in `model.classes`."""
    conditions: np.ndarray
    """Weather condition of each frame, str [N]."""

    def save(self, path: Path) -> None:
        """Write the frames as a compressed .npz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path, images=self.images, labels=self.labels, conditions=self.conditions
        )

    def accuracy(self, task: Task, predictions: np.ndarray) -> tuple[float, dict[str, float]]:
        """Mean score of the task's predictions, float32 [N, K]: overall and for each condition, 0 to 1."""
        return self.by_condition(task.scores(predictions, self.labels))

    def by_condition(self, scores: np.ndarray) -> tuple[float, dict[str, float]]:
        """Mean of the frames' scores, float64 [N]: overall and for each condition, 0 to 1."""
        groups = {
            str(c): float(scores[self.conditions == c].mean()) for c in np.unique(self.conditions)
        }
        return float(scores.mean()), groups


def read_held_out(path: Path, task: Task) -> HeldOut:
    """Held-out frames for the task. Raises HeldOutError if the file is missing, damaged or unfit for it."""
    try:
        images, labels, conditions = arrays_from(path, "images", "labels", "conditions")
    except ArchiveMissing as missing:
        raise HeldOutError(f"held-out frames {path} are missing") from missing
    except ArchiveError as broken:
        raise HeldOutError(f"held-out frames {broken}") from broken
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise HeldOutError(
            f"{path}: images {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, 3]"
        )
    if labels.shape[:1] != (len(images),) or conditions.shape != (len(images),):
        raise HeldOutError(f"{path}: labels and conditions must be of {len(images)} images")
    if conditions.dtype.kind != "U":
        raise HeldOutError(f"{path}: conditions {conditions.dtype}, expected texts")
    try:
        return HeldOut(images, task.checked(labels), conditions)
    except ValueError as unfit:
        raise HeldOutError(f"{path}: {unfit}") from unfit
