"""Local steps on a vehicle's own frames: a vector and frames go in, a delta comes out. No I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from fleetfl.closed_form import SufficientStatistics, features_of
from fleetfl.models.adapted import AdaptedModel
from fleetfl.tasks import Task
from vehicle_agent.sensors import Frames
from vehicle_agent.training import Assignment, Config, LocalTraining, Summed


class Trainer:
    """Owns a model; remembers, of all frames so far, only how many were of which class."""

    def __init__(
        self, config: Config, model: AdaptedModel, class_counts: Sequence[float] = ()
    ) -> None:
        """`class_counts` as the last training before a restart gave them, unless the classes changed."""
        self.config, self.model = config, model
        self.counts = np.ones(model.task.num_counts)
        if len(class_counts) == len(self.counts):
            self.counts = np.array(class_counts, np.float64)

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        """From `start`, float32 [P], one pass over the frames in batches.

        Raises ValueError if there are no frames, ModelError if the backbone cannot leave patches
        out. A diverged run gives a delta that is not finite.
        """
        trained = train(self.config, self.model, self.assignment(start, frames, seed=seed))
        return replace(trained, class_counts=self.counts.tolist())

    def sums(self, vector: np.ndarray, frames: Frames) -> Summed:
        """For the closed-form head: of the features that `vector`, float32 [P], makes of the frames."""
        self.model.load(vector)
        features, losses = [], []
        with torch.no_grad():
            for first in range(0, len(frames.images), 256):
                part = self.model.features(torch.from_numpy(frames.images[first : first + 256]))
                labels = self.model.placed(torch.from_numpy(frames.labels[first : first + 256]))
                losses.append(
                    functional.cross_entropy(self.model.head(part), labels, reduction="none")
                )
                features.append(part.cpu().numpy())
        sums = SufficientStatistics.of(np.concatenate(features), frames.labels, len(self.counts))
        body = sums.packed(features_of(vector, self.model.layout))
        return Summed(body, len(frames.images), float(torch.cat(losses).mean()))

    def assignment(self, start: np.ndarray, frames: Frames, *, seed: int) -> Assignment:
        """The training to come, its frames counted. Raises ValueError if there are no frames."""
        if not len(frames.images):
            raise ValueError("no frames to train on, expected at least 1")
        task = self.model.task
        frames = replace(frames, labels=task.checked(frames.labels))
        self.counts += task.counted(frames.labels)
        none = np.zeros(len(task.outputs), np.float32)
        prior = task.prior(self.counts) if self.config.calibrate else none
        return Assignment(start, frames, seed, prior)


def train(config: Config, model: AdaptedModel, todo: Assignment) -> LocalTraining:
    """One vehicle's training. (Many at once: `stacked_model.py` of virtual fleets.)"""
    model.load(todo.start)
    generator = torch.Generator().manual_seed(todo.seed)
    prior = model.placed(torch.from_numpy(todo.prior))
    parameters = list(model.trainable.values())
    optimizer, losses = optimizer_for(config, parameters), []
    with model.patch_dropout(config.patch_keep_rate, [generator]):
        for images, targets in batches(config, model.task, todo.frames, generator):
            loss = model.task.loss(model(images) + prior, model.placed(targets))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            optimizer.step()
            losses.append(loss.item())
    delta = model.vector() - todo.start
    return LocalTraining(delta, len(todo.frames.images), len(losses), float(np.mean(losses)))


def batches(
    config: Config, task: Task, frames: Frames, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One pass: images, uint8 [B, H, W, 3], mirrored or not, and their targets, [B] or [B, K]."""
    for first in range(0, len(frames.images), config.batch_size):
        images = torch.from_numpy(frames.images[first : first + config.batch_size])
        targets = torch.from_numpy(frames.labels[first : first + config.batch_size])
        if config.mirror:
            flip = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(2), images)
            targets = task.mirrored(targets, flip)
        yield images, targets


def optimizer_for(config: Config, parameters: Sequence[torch.Tensor]) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
    # Fused: MKL, which takes the square roots else, takes them otherwise on each kind of processor.
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
