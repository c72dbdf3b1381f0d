"""Where a vehicle's frames come from. They are trained on here and never leave."""

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig, chosen_from


class SensorError(FleetflError, OSError):
    """A source without usable frames; the message names it and what was expected."""


@dataclass(frozen=True)
class Frames:
    """Some frames and their labels."""

    images: np.ndarray
    """uint8 [B, H, W, 3]."""
    labels: np.ndarray
    """int64 [B], positions in the model's `classes`."""
    captured_from: float
    captured_to: float
    """When the oldest and newest were taken, UTC seconds."""


class SensorSource(Protocol):
    @property
    def num_frames(self) -> int | None:
        """Different frames it has; None for an endless stream."""
        ...

    def read(self, count: int) -> Frames:
        """The next `count` frames; a finite source starts again at its end. Raises SensorError."""
        ...

    def skip(self, count: int) -> None:
        """Go on, after a restart, where a source that has read so many frames would (unreadable ones aside).

        An endless stream only has to show other frames than those before.
        """
        ...


class SensorConfig(PluginConfig):
    """Settings of one source."""

    def build(self, classes: tuple[str, ...]) -> SensorSource:
        """Open it for a model of these classes. Raises SensorError."""
        raise NotImplementedError


AnySensor = Annotated[SerializeAsAny[SensorConfig], chosen_from("vehicle_agent.sensors")]
