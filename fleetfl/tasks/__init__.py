"""What a fleet's model is for: outputs of the head, loss, targets of a frame, scores, answers. A file a kind.

A task is torch-free until a tensor is given to it, so settings read quickly. Everything between vehicle and
server works on the flat vector and never sees a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np
from pydantic import BaseModel, SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from

if TYPE_CHECKING:
    import torch


class Task(Protocol):
    """One task for one model. C outputs of the head make K values of a prediction."""

    outputs: tuple[str, ...]
    """Names of the head's outputs, in their order; with another list a vector means something else."""
    targets: tuple[str, ...]
    """Names of what a frame's target says, which a sensor has to know."""
    num_counts: int
    """Numbers that a vehicle remembers of the targets it has met; 0 where nothing is remembered."""

    @property
    def route(self) -> str:
        """Last part of the endpoint's path, `/v1/{route}`."""
        ...

    @property
    def answer_type(self) -> type[BaseModel]:
        """Schema of the endpoint's answer."""
        ...

    def checked(self, targets: np.ndarray) -> np.ndarray:
        """Targets of B frames as the losses take them. Raises ValueError that says what was expected."""
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch, a scalar; outputs float32 [B, C]."""
        ...

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Loss of every frame, float32 [V, B]; outputs float32 [V, B, C]."""
        ...

    def mirrored(self, targets: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """Targets of the frames, of which those where `flip`, bool [B], are mirrored left to right."""
        ...

    def counted(self, targets: np.ndarray) -> np.ndarray:
        """How the targets of a batch count, float64 [num_counts]."""
        ...

    def prior(self, counts: np.ndarray) -> np.ndarray:
        """Added to the outputs while a vehicle that has met `counts` trains, float32 [C]."""
        ...

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs, float32 [B, C] -> predictions, float32 [B, K]."""
        ...

    def scores(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """How good each prediction, float32 [N, K], is: float64 [N] from 0 to 1. Not finite counts 0."""
        ...

    def groups(self, targets: np.ndarray) -> np.ndarray:
        """The group of each frame by which reports tell scores apart, int64 [N]."""
        ...

    def answer(self, prediction: np.ndarray, *, model_version: int) -> BaseModel:
        """The endpoint's answer for one prediction, float32 [K]."""
        ...

    def prediction(self, answer: dict[str, Any]) -> np.ndarray:
        """The prediction, float32 [K], that an answer tells. Raises KeyError, TypeError or ValueError."""
        ...


class TaskConfig(PluginConfig):
    """Settings of one kind of task."""

    def build(self, classes: tuple[str, ...]) -> Task:
        """The task of a model with these `model.classes`. Raises ValueError if they do not fit."""
        raise NotImplementedError


AnyTask = Annotated[SerializeAsAny[TaskConfig], chosen_from("fleetfl.tasks")]
