"""Classification: one of `model.classes` for each picture, by softmax and cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from fleetfl.tasks import TaskConfig

if TYPE_CHECKING:
    import torch


class Answer(BaseModel):
    """Answer to one picture."""

    label: str = Field(description="Most probable class.")
    probabilities: dict[str, float] = Field(description="One for each class; they sum to 1.")
    model_version: int = Field(description="The release that answered.")


class Config(TaskConfig):
    """One label for each picture, out of `model.classes`."""

    kind: Literal["classification"] = "classification"

    def build(self, classes: tuple[str, ...]) -> Classification:
        """The task of telling these classes apart. Raises ValueError for fewer than two, or two alike."""
        if len(classes) < 2:
            raise ValueError(f"got {len(classes)}, expected at least 2 to tell apart")
        if len(set(classes)) != len(classes):
            raise ValueError("class names must differ")
        return Classification(classes)


class Classification:
    """A head output for each class; a frame's target is the position of its class, int64."""

    route = "classify"
    answer_type = Answer

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.outputs = self.targets = classes
        self.num_counts = len(classes)

    def checked(self, targets: np.ndarray) -> np.ndarray:
        """Positions of classes, int64 [B]. Raises ValueError for others."""
        num = len(self.outputs)
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise ValueError(
                f"labels {targets.dtype} {list(targets.shape)}, expected integers [B] below {num}"
            )
        if targets.size and not 0 <= targets.min() <= targets.max() < num:
            raise ValueError(
                f"labels from {targets.min()} to {targets.max()}, the model has {num} classes"
            )
        return targets.astype(np.int64)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets)

    def losses(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each frame in nats, float32 [V, B]."""
        from torch.nn import functional

        return functional.cross_entropy(outputs.mT, targets, reduction="none")

    def mirrored(self, targets: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """The same targets: a class seen in a mirror is that class."""
        return targets

    def counted(self, targets: np.ndarray) -> np.ndarray:
        """Frames of each class, float64 [C]."""
        return np.bincount(targets, minlength=self.num_counts).astype(np.float64)

    def prior(self, counts: np.ndarray) -> np.ndarray:
        """Log of the vehicle's class shares, float32 [C] (FedLC, arXiv:2209.00189)."""
        return np.log(counts / counts.sum()).astype(np.float32)

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes, float32 [B, C], rows summing to 1."""
        return outputs.softmax(dim=1)

    def scores(self, predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """1 where the most probable class is right, so that the mean is the accuracy."""
        is_number = np.isfinite(predictions).all(axis=1)
        return (is_number & (predictions.argmax(axis=1) == targets)).astype(np.float64)

    def groups(self, targets: np.ndarray) -> np.ndarray:
        """The frame's class."""
        return targets

    def answer(self, prediction: np.ndarray, *, model_version: int) -> Answer:
        """Label and probabilities."""
        return Answer(
            label=self.outputs[int(prediction.argmax())],
            probabilities={n: float(p) for n, p in zip(self.outputs, prediction, strict=True)},
            model_version=model_version,
        )

    def prediction(self, answer: dict[str, Any]) -> np.ndarray:
        """The probabilities in the order of the classes, float32 [C]."""
        return np.array([answer["probabilities"][name] for name in self.outputs], np.float32)
