"""What a training is asked for and what it came to. Knows no torch, so an agent can be there without."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from fleetfl.config import Section
from vehicle_agent.sensors import Frames


class Config(Section):
    """Local training on a vehicle."""

    former_names: ClassVar = {"patches_kept": "patch_keep_rate"}

    local_steps: int = Field(default=8, ge=1)
    """Optimizer steps in one local training."""
    batch_size: int = Field(default=32, ge=1)
    """Frames in one optimizer step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The local optimizer; its state starts anew with every update."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of the local optimizer."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW; L2 penalty with SGD."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Bound on the gradient's norm at each step."""
    patch_keep_rate: float = Field(default=1.0, gt=0, le=1)
    """Share of an image's patches that a step looks at; a half makes a step twice as cheap. For
    timm's ViTs (PatchDropout, arXiv:2208.07220)."""
    mirror: bool = True
    """Mirror half of the frames left to right."""
    calibrate: bool = True
    """Add the log of the vehicle's own class shares to the logits while training, so that the head
    learns to tell classes apart, not how often this vehicle meets them (FedLC, arXiv:2209.00189)."""

    @property
    def num_examples(self) -> int:
        return self.local_steps * self.batch_size


@dataclass(frozen=True)
class Assignment:
    """All that one training depends on, beside settings and model."""

    start: np.ndarray
    """float32 [P]."""
    frames: Frames
    seed: int
    prior: np.ndarray
    """Added to the logits, float32 [C]: the log of the vehicle's class shares, or zeros."""


@dataclass(frozen=True)
class LocalTraining:
    delta: np.ndarray
    """What training changed, float32 [P]."""
    num_examples: int
    local_steps: int
    loss: float
    """Mean over the steps."""
    class_counts: list[float] | None = None
    """What the trainer has to be given back after a restart; None if it remembers nothing."""


@dataclass(frozen=True)
class Summed:
    """Sums over frames, for the closed-form head."""

    body: bytes
    """As fleetfl/closed_form.py packs them."""
    num_examples: int
    loss: float
    """Of the head as it is."""


class Training(Protocol):
    """A trainer whose call returns when the training is done."""

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        """Train from `start`, float32 [P], on the frames."""
        ...
