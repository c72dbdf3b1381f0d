"""Local training of many vehicles in one call: their adapters are stacked, the frozen layers see one batch.

The result is that of vehicle_agent's trainer, one vehicle after the other, but for float32's rounding.
Small steps spend most of their time between the operations, which is what is shared. Large ones gain nothing
and would leave the processor's caches, so the size of a stack follows from the model's work an image.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fleetfl.models.adapted import AdaptedModel
from vehicle_agent.trainer import batches, optimizer_for, train
from vehicle_agent.training import Assignment, Config, LocalTraining

WORK = 3.4e9
"""Floating-point operations of a stack's forward step, at most: beyond, nothing is gained."""


def rows_for(model: AdaptedModel) -> int:
    """How many images a step of a stack may have: 128 for a ViT of 0.2 M parameters, 9 for one of 2.7 M."""
    one = torch.zeros(1, model.image_size, model.image_size, 3, dtype=torch.uint8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(one)
    return max(1, int(WORK / counter.get_total_flops()))


def train_together(
    config: Config, model: AdaptedModel, todo: Sequence[Assignment], *, rows: int
) -> list[LocalTraining]:
    """What `train` gives for each, in their order; up to `rows` images in a step.

    Raises ModelError as `train` does.
    """
    done: dict[int, LocalTraining] = {}
    for numbers in stacks(config, todo, rows=rows):
        part = [todo[number] for number in numbers]
        one = len(part) == 1
        trained = [train(config, model, part[0])] if one else _train_stack(config, model, part)
        done |= zip(numbers, trained, strict=True)
    return [done[number] for number in range(len(todo))]


def stacks(config: Config, todo: Sequence[Assignment], *, rows: int) -> Iterator[list[int]]:
    """Numbers of assignments to train in one call: of one shape, at most `rows` images a step, evenly."""
    shape = [assignment.frames.images.shape for assignment in todo]
    most = max(1, rows // config.batch_size)
    for _, same in groupby(sorted(range(len(todo)), key=lambda n: shape[n]), lambda n: shape[n]):
        numbers = list(same)
        for part in np.array_split(numbers, -(-len(numbers) // most)):
            yield part.tolist()


def _train_stack(
    config: Config, model: AdaptedModel, todo: Sequence[Assignment]
) -> list[LocalTraining]:
    values = _stacked(model, [assignment.start for assignment in todo])
    optimizer = optimizer_for(config, list(values.values()))
    generators = [torch.Generator().manual_seed(assignment.seed) for assignment in todo]
    priors = torch.from_numpy(np.stack([assignment.prior for assignment in todo]))[:, None]
    priors = model.placed(priors)
    passes = [
        batches(config, model.task, a.frames, g) for a, g in zip(todo, generators, strict=True)
    ]
    losses = []
    with model.patch_dropout(config.patch_keep_rate, generators):
        for step in zip(*passes, strict=True):
            images = torch.cat([images for images, _ in step])
            targets = model.placed(torch.stack([targets for _, targets in step]))
            outputs = model.stacked_logits(values, images).view(*targets.shape[:2], -1) + priors
            loss = model.task.losses(outputs, targets).mean(dim=1)
            optimizer.zero_grad()
            # No vehicle's loss depends on another's values: the sum's gradient is each one's own.
            loss.sum().backward()
            _clip(values.values(), config.clip_norm)
            optimizer.step()
            losses.append(loss.detach().cpu().numpy())
    ends = [
        {name: stack.detach().cpu().numpy()[v] for name, stack in values.items()}
        for v in range(len(todo))
    ]
    return [
        LocalTraining(
            model.layout.flatten(end) - assignment.start,
            len(assignment.frames.images),
            len(losses),
            float(np.mean([loss[number] for loss in losses])),
        )
        for number, (end, assignment) in enumerate(zip(ends, todo, strict=True))
    ]


def _stacked(model: AdaptedModel, vectors: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """The trainable tensors of all these vectors, [V, ...] each."""
    parts = [model.layout.unflatten(vector) for vector in vectors]
    return {
        name: model.placed(
            torch.from_numpy(np.stack([part[name] for part in parts]))
        ).requires_grad_()
        for name in model.trainable
    }


def _clip(stacks: Iterable[torch.Tensor], most: float) -> None:
    """torch.nn.utils.clip_grad_norm_, for each vehicle by itself."""
    gradients = [stack.grad for stack in stacks if stack.grad is not None]
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale = (most / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
