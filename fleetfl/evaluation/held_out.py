"""Held-out frames: labelled frames that no vehicle trains on, each with its weather condition."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fleetfl import FleetflError
from fleetfl.storage.arrays import ArchiveError, ArchiveMissing, arrays_from


class HeldOutError(FleetflError, ValueError):
    """A file without usable held-out frames; names it and what was expected."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out frames with labels and weather conditions."""

    images: np.ndarray
    """Frames, uint8 [N, H, W, 3]."""
    labels: np.ndarray
    """Class of each frame, int64 [N]."""
    conditions: np.ndarray
    """Weather condition of each frame, str [N]."""

    def save(self, path: Path) -> None:
        """Write the frames as a compressed .npz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path, images=self.images, labels=self.labels, conditions=self.conditions
        )

    def accuracy(self, predicted: np.ndarray) -> tuple[float, dict[str, float]]:
        """Share of right predictions, int [N] -> a fraction overall and for each condition."""
        right = predicted == self.labels
        by_condition = {
            str(c): float(right[self.conditions == c].mean()) for c in np.unique(self.conditions)
        }
        return float(right.mean()), by_condition


def read_held_out(path: Path, num_classes: int) -> HeldOut:
    """Held-out frames of a file. Raises HeldOutError if it is missing, damaged or has other classes."""
    try:
        images, labels, conditions = arrays_from(path, "images", "labels", "conditions")
    except ArchiveMissing as missing:
        raise HeldOutError(f"held-out frames {path} are missing") from missing
    except ArchiveError as broken:
        raise HeldOutError(f"held-out frames {broken}") from broken
    frames = HeldOut(images, labels, conditions)
    unfit = _objection(frames, num_classes)
    if unfit:
        raise HeldOutError(f"{path}: {unfit}")
    return replace(frames, labels=labels.astype(np.int64))


def _objection(frames: HeldOut, num_classes: int) -> str:
    """Why the arrays are no held-out frames of `num_classes` classes; empty if they are."""
    images, labels, conditions = frames.images, frames.labels, frames.conditions
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        return f"images {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, 3]"
    if labels.shape != (len(images),) or conditions.shape != (len(images),):
        return f"labels and conditions must be [{len(images)}]"
    if labels.dtype.kind not in "iu" or conditions.dtype.kind != "U":
        found = f"labels {labels.dtype} and conditions {conditions.dtype}"
        return f"{found}, expected integers and texts"
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"labels to {labels.max()}, the model has {num_classes} classes"
    return ""
