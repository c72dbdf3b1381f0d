"""Centralized baseline: the same adapter trained in one place on the pooled frames of all vehicles."""

from collections.abc import Callable

import numpy as np
import torch

from fleetfl.models.adapted import AdaptedModel
from vehicle_agent.sensors import SensorSource


def train_central(
    model: AdaptedModel,
    start: np.ndarray,
    sensors: list[SensorSource],
    *,
    image_steps: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Parameters float32 [P] after `image_steps` images from `start`: AdamW, one-cycle rate, mirrored frames.

    Each frame of a batch comes from a vehicle drawn by its part of all frames; endless streams have
    equal parts.
    `progress` is told the share done, 0 to 1.
    """
    model.load(start)
    counts = np.array([sensor.num_frames or 1 for sensor in sensors], float)
    shares = counts / counts.sum()
    rng = np.random.default_rng(seed)
    parameters = list(model.trainable.values())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-4)
    steps = max(1, image_steps // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    for step in range(steps):
        parts = rng.multinomial(batch_size, shares)
        frames = [sensor.read(int(n)) for sensor, n in zip(sensors, parts, strict=True) if n]
        images = np.concatenate([f.images for f in frames])
        labels = model.task.checked(np.concatenate([f.labels for f in frames]))
        flip = rng.random(len(images)) < 0.5
        images[flip] = images[flip][:, :, ::-1]
        targets = model.task.mirrored(torch.from_numpy(labels), torch.from_numpy(flip))
        loss = model.task.loss(model(torch.from_numpy(images)), model.placed(targets))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        progress((step + 1) / steps)
    return model.vector()
