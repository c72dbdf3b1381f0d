"""What one run of one fleet gave: accuracy over virtual time, and what it took."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SMOOTH = 3
"""Evaluations in a moving mean: one alone reaches a target by luck."""
LAST = 10
"""Evaluations that a run's final accuracy is the mean of."""


@dataclass(frozen=True)
class Curve:
    """Lists of one length are over the evaluations, or over the vehicles."""

    seconds: list[float]
    """Virtual time of each evaluation, from 0 on."""
    accuracy: list[float]
    """On held-out frames (fractions)."""
    updates: list[int]
    """Accepted by then."""
    by_condition: dict[str, float]
    """Over the last evaluations."""
    by_vehicle: list[float]
    """Of the last evaluations, on frames as that vehicle meets them: its classes, its condition."""
    by_vehicle_before: list[float]
    """The same with the first model: some vehicles have harder frames than others."""
    pace_s: list[float]
    """Of each vehicle: seconds of one local training."""
    staleness: dict[str, int]
    """Accepted updates by staleness."""
    versions: int
    declined: int
    joules: float
    bytes_up: int

    @property
    def final(self) -> float:
        return float(np.mean(self.accuracy[-LAST:]))

    def seconds_to(self, target: float) -> float | None:
        """When the moving mean of the accuracy is at the target for the first time."""
        at = self._reached(target)
        return None if at is None else self.seconds[at]

    def updates_to(self, target: float) -> int | None:
        at = self._reached(target)
        return None if at is None else self.updates[at]

    def _reached(self, target: float) -> int | None:
        smooth = smoothed(self.accuracy)
        met = np.flatnonzero(smooth >= target)
        return int(met[0]) if len(met) else None

    def slowest_behind_fastest(self) -> float:
        """Accuracy of the fastest fifth of the vehicles less the slowest fifth's (fractions)."""
        return self._gap(self.by_vehicle)

    def slowest_gained_less(self) -> float:
        """The same of what each gained since the first model, so that harder frames do not count."""
        gains = np.array(self.by_vehicle) - np.array(self.by_vehicle_before)
        return self._gap(gains.tolist())

    def _gap(self, values: Sequence[float]) -> float:
        order, fifth = np.argsort(self.pace_s), max(1, len(self.pace_s) // 5)
        ranked = np.array(values)[order]
        return float(ranked[:fifth].mean() - ranked[-fifth:].mean())

    def to_line(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> "Curve":
        return cls(**{name: line[name] for name in cls.__dataclass_fields__})


def smoothed(values: Sequence[float]) -> np.ndarray:
    """Mean of each with those up to SMOOTH - 1 before it."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(0, ends - SMOOTH)
    return (sums[ends] - sums[begins]) / (ends - begins)
