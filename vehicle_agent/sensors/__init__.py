"""Where a vehicle's frames come from. They are trained on here and never leave."""

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig, chosen_from

MAX_SECOND = float(2**40)
"""The latest moment that an update can name, UTC seconds; the earliest is 0."""


class SensorError(FleetflError, OSError):
    """A source without usable frames; the message names it and what was expected."""


@dataclass(frozen=True)
class Frames:
    """Some frames and their labels."""

    images: np.ndarray
    """uint8 [B, H, W, 3]."""
    labels: np.ndarray
    """Targets of the task: int64 [B], positions in `model.classes`; or numbers, float32 [B, K]."""
    captured_from: float
    captured_to: float
    """When the oldest and newest were taken, UTC seconds."""


class SensorSource(Protocol):
    @property
    def num_frames(self) -> int | None:
        """Different frames it has; None for an endless stream."""
        ...

    # One that passes frames over may have a property `note: str` besides: how many and why, and empty if it
    # passed over none. The vehicle's status shows it.

    def read(self, count: int) -> Frames:
        """The next `count` frames; a finite source starts again at its end. Raises SensorError."""
        ...

    def skip(self, count: int) -> None:
        """Go on, after a restart, where a source that has read so many frames would (unreadable ones aside).

        An endless stream only has to show other frames than those before.
        """
        ...


def checked(frames: Frames) -> Frames:
    """The frames as training takes them, dates in range. Raises SensorError if a source gave something else.

    Anybody may have written it, so what reading its fields raises comes out as it is.
    """
    images, labels = frames.images, frames.labels
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
    is_number = labels.dtype.kind == "f" and labels.ndim == 2
    if not fits or not len(images) or labels.shape[: labels.ndim - is_number] != images.shape[:1]:
        raise SensorError(
            f"images {images.dtype} {list(images.shape)} with labels {list(labels.shape)}, "
            "expected uint8 [B, H, W, 3] and [B]"
        )
    if is_number and not np.isfinite(labels).all():
        raise SensorError("targets that are not all finite")
    if not is_number and (labels.dtype.kind not in "iu" or labels.min() < 0):
        raise SensorError(f"labels {labels.dtype} from {labels.min()}, expected integers from 0")
    oldest, newest = _moment(frames.captured_from), _moment(frames.captured_to)
    targets = labels.astype(np.float32 if is_number else np.int64)
    return Frames(images, targets, oldest, max(oldest, newest))


def _moment(second: float) -> float:
    """In the range that an update can name; a camera without a clock says what it likes."""
    return min(max(float(second), 0.0), MAX_SECOND) if np.isfinite(second) else 0.0


def opened(config: "SensorConfig", classes: tuple[str, ...], *, num_read: int) -> SensorSource:
    """The source, gone on to where it was after so many frames. Raises SensorError, whatever it raises."""
    try:
        source = config.build(classes)
        source.skip(num_read)
        return source
    except SensorError:
        raise
    except Exception as broken:
        raise SensorError(f"{config.kind_name}: {type(broken).__name__}: {broken}") from broken


def passed_over(source: SensorSource) -> str:
    """Frames that the source passed over, and why, in words; empty if it says nothing of any."""
    try:
        return str(getattr(source, "note", ""))
    except Exception as broken:
        return f"{type(source).__name__} cannot say what it passed over: {type(broken).__name__}"


class SensorConfig(PluginConfig):
    """Settings of one source."""

    def build(self, classes: tuple[str, ...]) -> SensorSource:
        """Open it for a model of these classes. Raises SensorError."""
        raise NotImplementedError


AnySensor = Annotated[SerializeAsAny[SensorConfig], chosen_from("vehicle_agent.sensors")]
