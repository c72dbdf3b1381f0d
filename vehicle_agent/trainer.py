"""Local steps on a vehicle's own frames: a vector and frames go in, a delta comes out. No I/O."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.nn import functional

from fleetfl.models.adapted import AdaptedModel
from vehicle_agent.sensors import Frames


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    local_steps: int = Field(default=8, ge=1)
    batch_size: int = Field(default=32, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Its state starts anew with every update."""
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    """Bound on the gradient's norm at each step."""
    patches_kept: float = Field(default=1.0, gt=0, le=1)
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
class LocalTraining:
    delta: np.ndarray
    """What training changed, float32 [P]."""
    num_examples: int
    local_steps: int
    loss: float
    """Mean over the steps."""


class Trainer:
    """Owns a model; remembers, of all frames so far, only how many were of which class."""

    def __init__(self, config: Config, model: AdaptedModel) -> None:
        self.config, self.model = config, model
        self.counts = np.ones(len(model.config.classes))

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        """From `start`, float32 [P], one pass over the frames in batches.

        Raises ValueError if there are no frames, ModelError if the backbone cannot leave patches
        out. A diverged run gives a delta that is not finite.
        """
        if not len(frames.images):
            raise ValueError("no frames to train on, expected at least 1")
        self.model.load(start)
        generator = torch.Generator().manual_seed(seed)
        self.counts += np.bincount(frames.labels, minlength=len(self.counts))
        prior = torch.from_numpy(np.log(self.counts / self.counts.sum())).float()
        optimizer = self._optimizer()
        losses = []
        with self.model.thinned(self.config.patches_kept, generator):
            for first in range(0, len(frames.images), self.config.batch_size):
                images = torch.from_numpy(frames.images[first : first + self.config.batch_size])
                labels = torch.from_numpy(frames.labels[first : first + self.config.batch_size])
                if self.config.mirror:
                    flip = torch.rand(len(images), generator=generator) < 0.5
                    images = torch.where(flip[:, None, None, None], images.flip(2), images)
                logits = self.model(images)
                if self.config.calibrate:
                    logits = logits + prior
                loss = functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.model.trainable.values(), self.config.clip_norm)
                optimizer.step()
                losses.append(loss.item())
        delta = self.model.vector() - start
        return LocalTraining(delta, len(frames.images), len(losses), float(np.mean(losses)))

    def _optimizer(self) -> torch.optim.Optimizer:
        parameters = list(self.model.trainable.values())
        rate, decay = self.config.learning_rate, self.config.weight_decay
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
