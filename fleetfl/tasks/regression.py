"""Regression: numbers for each picture, such as the altitude and the heading of the drone that took it.

A score is the share of a frame's numbers that are within their tolerance, so that accuracies in registry,
reports and metrics mean the same as for other tasks: 1 is perfect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from fleetfl.config import Section
from fleetfl.tasks import TaskConfig

if TYPE_CHECKING:
    import torch


class Target(Section):
    """A number to estimate: on a line from `low` to `high`, or on a circle of `period`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")
    """Name of the number, as the sensor and the endpoint's answers call it."""
    unit: str = Field(default="", max_length=32)
    """Unit of the number, such as m or deg."""
    low: float = 0.0
    """Usual smallest value; with `high` it says how errors of different numbers weigh against each other."""
    high: float = 1.0
    """Usual largest value."""
    period: float | None = Field(default=None, gt=0)
    """Values that differ by this are the same, as 360 degrees of a heading; `low` and `high` do not count."""
    tolerance: float = Field(gt=0)
    """Largest error, in the unit, that counts as right in scores."""
    mirror: Literal["same", "negate"] = "same"
    """What becomes of the number when its frame is mirrored left to right in training."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Target:
        if self.period is None and not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the head's outputs for it: one, or cosine and sine on a circle."""
        if self.period is None:
            return (f"{self.name} [{self.unit}] {self.low:g} to {self.high:g}",)
        return tuple(
            f"{part} of {self.name} [{self.unit}] mod {self.period:g}" for part in ("cos", "sin")
        )


class Answer(BaseModel):
    """Answer to one picture."""

    values: dict[str, float] = Field(description="Estimate of each number, in its unit.")
    units: dict[str, str] = Field(description="Unit of each number.")
    model_version: int = Field(description="The release that answered.")


class Config(TaskConfig):
    """Numbers for each picture; a frame's target is float32 [K], in the order of `numbers`."""

    kind: Literal["regression"] = "regression"
    numbers: tuple[Target, ...] = Field(min_length=1)
    """What to estimate."""

    def build(self, classes: tuple[str, ...]) -> Regression:
        """The task. Raises ValueError if there are classes, or two numbers of one name."""
        if classes:
            raise ValueError("regression has none, its outputs are model.task.numbers")
        names = [number.name for number in self.numbers]
        if len(set(names)) != len(names):
            raise ValueError(f"model.task.numbers: names {names} must differ")
        return Regression(self.numbers)


class Regression:
    """Least squares on numbers scaled to -1..1, and on cosine and sine of those on a circle."""

    route = "estimate"
    answer_type = Answer
    num_counts = 0

    def __init__(self, numbers: tuple[Target, ...]) -> None:
        self.numbers = numbers
        self.targets = tuple(number.name for number in numbers)
        self.outputs = tuple(name for number in numbers for name in number.outputs)

    def checked(self, targets: np.ndarray) -> np.ndarray:
        """Finite numbers, float32 [B, K]. Raises ValueError for others."""
        fits = targets.ndim == 2 and targets.shape[1] == len(self.numbers)
        if not fits or targets.dtype.kind not in "iuf":
            raise ValueError(
                f"targets {targets.dtype} {list(targets.shape)}, expected numbers [B, {len(self.numbers)}]"
                f" for {', '.join(self.targets)}"
            )
        if not np.isfinite(targets).all():
            raise ValueError(f"targets for {', '.join(self.targets)} are not all finite")
        return targets.astype(np.float32)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the scaled outputs."""
        return (outputs - self._scaled(targets)).square().mean()

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error of each frame's scaled outputs, float32 [V, B]."""
        return (outputs - self._scaled(targets)).square().mean(dim=-1)

    def mirrored(self, targets: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """Numbers whose `mirror` is `negate` change sign where the frame is mirrored."""
        signs = targets.new_tensor([-1.0 if n.mirror == "negate" else 1.0 for n in self.numbers])
        return targets * signs.where(flip[:, None], targets.new_ones(()))

    def counted(self, targets: np.ndarray) -> np.ndarray:
        """Nothing is remembered: float64 [0]."""
        return np.zeros(0)

    def prior(self, counts: np.ndarray) -> np.ndarray:
        """Zeros, float32 [C]: what a vehicle met before does not move its outputs."""
        return np.zeros(len(self.outputs), np.float32)

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Estimates in their units, float32 [B, K]; on a circle from -period/2 to period/2."""
        import torch

        columns = []
        for number, column in self._columns():
            if number.period is None:
                middle, half = (number.low + number.high) / 2, (number.high - number.low) / 2
                columns.append(outputs[:, column] * half + middle)
            else:
                angle = torch.atan2(outputs[:, column + 1], outputs[:, column])
                columns.append(angle * (number.period / (2 * np.pi)))
        return torch.stack(columns, dim=1)

    def scores(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Share of each frame's numbers that are within their tolerance."""
        errors = np.abs(predictions.astype(np.float64) - targets)
        for column, number in enumerate(self.numbers):
            if number.period is not None:
                around = errors[:, column] % number.period
                errors[:, column] = np.minimum(around, number.period - around)
        most = np.array([number.tolerance for number in self.numbers])
        return (np.isfinite(errors) & (errors <= most)).mean(axis=1)

    def groups(self, targets: np.ndarray) -> np.ndarray:
        """All frames are one group."""
        return np.zeros(len(targets), np.int64)

    def answer(self, prediction: np.ndarray, *, model_version: int) -> Answer:
        """The estimates by name."""
        return Answer(
            values={n: float(v) for n, v in zip(self.targets, prediction, strict=True)},
            units={number.name: number.unit for number in self.numbers},
            model_version=model_version,
        )

    def prediction(self, answer: dict[str, Any]) -> np.ndarray:
        """The estimates in the order of the numbers, float32 [K]."""
        return np.array([answer["values"][name] for name in self.targets], np.float32)

    def _columns(self) -> Iterator[tuple[Target, int]]:
        """Each number and its first output."""
        column = 0
        for number in self.numbers:
            yield number, column
            column += len(number.outputs)

    def _scaled(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets, float32 [..., K] -> what the outputs are to be, float32 [..., C]."""
        import torch

        parts = []
        for column, number in enumerate(self.numbers):
            value = targets[..., column]
            if number.period is None:
                middle, half = (number.low + number.high) / 2, (number.high - number.low) / 2
                parts.append((value - middle) / half)
            else:
                angle = value * (2 * np.pi / number.period)
                parts += [angle.cos(), angle.sin()]
        return torch.stack(parts, dim=-1)
