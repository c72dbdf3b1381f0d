"""A quick fleet's head in closed form (`fleetfl/closed_form.py`): vehicles send their sums, once."""

import heapq
from collections.abc import Sequence

import numpy as np

from fleetfl.closed_form import Config, SufficientStatistics, discriminant
from sim.compare.features import Part
from sim.compare.head import Head


def with_solved_head(
    head: Head, params: np.ndarray, frames: Part, hands: Sequence[np.ndarray]
) -> tuple[np.ndarray, int]:
    """`params`, float32 [P], with the head that these vehicles' frames give, and the bytes of their messages.

    `hands`: each one's rows of `frames`.
    """
    sums = [
        SufficientStatistics.of(frames.features[rows], frames.labels[rows], head.num_classes)
        for rows in hands
    ]
    total = sums[0]
    for each in sums[1:]:
        total = total.plus(each)
    settings = Config()
    weight, bias = discriminant(total, shrinkage=settings.shrinkage)
    tensors = dict(head.layout.unflatten(params))
    tensors["w"] = (settings.scale * weight.T).astype(np.float32)
    tensors["bias"] = (settings.scale * bias).astype(np.float32)
    return head.layout.flatten(tensors), sum(len(each.packed(bytes(8))) for each in sums)


def in_turn(popularity: np.ndarray, *, seed: int) -> np.ndarray:
    """Vehicles in the order in which they come up, int64 [V]: drawn by `popularity`, each once."""
    rng = np.random.default_rng([seed, 2])
    return rng.choice(
        len(popularity), len(popularity), replace=False, p=popularity / popularity.sum()
    )


def sent_at(pace_s: np.ndarray, concurrency: int) -> np.ndarray:
    """float64 [V]: seconds at which each vehicle's sums are in, begun in this order, so many at work.

    Sums are charged as a whole local training, though they take no backward pass.
    """
    busy: list[float] = []
    ends = []
    for takes_s in pace_s:
        begins = heapq.heappop(busy) if len(busy) >= concurrency else 0.0
        heapq.heappush(busy, begins + float(takes_s))
        ends.append(begins + float(takes_s))
    return np.array(ends)
