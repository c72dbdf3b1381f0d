"""A lockstep fleet with one hostile vehicle, whose forged updates carry a valid signature of its own key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from fleetfl import closed_form
from fleetfl.codecs import decoder
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.outcome import Outcome
from fleetfl.protocol.messages import Update
from fleetfl.vectors import Layout
from sim.bench.lockstep import LockstepFleet

MOST_EXAMPLES = 2**53
"""Largest `num_examples` that the wire format accepts."""


@dataclass(frozen=True)
class Forgery:
    """Inputs of one attack: the honest training that the hostile vehicle replaces with a forgery."""

    layout: Layout
    vector: np.ndarray
    """Parameters of the release that the training started from, float32 [P]."""
    delta: np.ndarray
    """Honest update: trained minus starting parameters, float32 [P]."""
    dice: np.random.Generator


def huge(at: Forgery) -> np.ndarray:
    """Update [P] of 10,000 in every parameter."""
    return np.full(at.layout.size, 1e4)


def limit(at: Forgery) -> np.ndarray:
    """Update [P] of 3e38 in every parameter: finite, and near the largest float32."""
    return np.full(at.layout.size, 3e38)


def flipped(at: Forgery) -> np.ndarray:
    """Honest update [P] times -10."""
    return -10.0 * at.delta


def rotated(at: Forgery) -> np.ndarray:
    """Ten times the difference to a head in which each class has the weights of the class before it, [P]."""
    tensors = dict(at.layout.unflatten(at.vector))
    for name in (closed_form.WEIGHT, closed_form.BIAS):
        tensors[name] = np.roll(tensors[name], 1, axis=0)
    return 10.0 * (at.layout.flatten(tensors) - at.vector)


def noise(at: Forgery) -> np.ndarray:
    """Standard normal random update [P]."""
    return at.dice.normal(size=at.layout.size)


def weighty(at: Forgery) -> np.ndarray:
    """Negated honest update [P]; `forged` claims the largest `num_examples` for it."""
    return -at.delta


KINDS: dict[str, Callable[[Forgery], np.ndarray]] = {
    "huge": huge,
    "float32 limit": limit,
    "sign flip x10": flipped,
    "labels rotated x10": rotated,
    "noise": noise,
    "examples and statistics": weighty,
}


def forged(kind: str, update: Update, at: Forgery) -> Update:
    """The honest `update` with its body, and for one kind its `num_examples`, replaced by the attack."""
    body = decoder("float32", at.layout).encode(KINDS[kind](at).astype(np.float32))
    claimed = MOST_EXAMPLES if KINDS[kind] is weighty else update.num_examples
    return replace(update, codec="float32", body=body, num_examples=claimed)


def forged_statistics(
    honest: closed_form.SufficientStatistics,
) -> closed_form.SufficientStatistics:
    """Sufficient statistics with 2**20 times the weight, and each class labelled as the next one."""
    times = 2**20
    return closed_form.SufficientStatistics(
        times * honest.gram, np.roll(times * honest.cross, 1, axis=1)
    )


class HostileFleet(LockstepFleet):
    """Lockstep fleet whose last vehicle sends forged updates of one kind; with kind None it is honest."""

    def __init__(
        self, fleet: str, coordinator: Coordinator, *parts: Any, kind: str | None, **about: Any
    ):
        super().__init__(fleet, coordinator, *parts, **about)
        self.kind = kind
        self.dice = np.random.default_rng(self.seed)
        self.refused = 0
        self.clipped = 0
        """Number of honest updates that the server clipped."""

    def _is_hostile(self, vehicle: int) -> bool:
        return self.kind is not None and vehicle == len(self.sensors) - 1

    def _made(self, vehicle: int, number: int, version: int, start: np.ndarray) -> Update:
        honest = super()._made(vehicle, number, version, start)
        if self.kind is None or not self._is_hostile(vehicle):
            return honest
        delta = decoder(honest.codec, self.layout).decode(honest.body)
        return forged(self.kind, honest, Forgery(self.layout, start, delta, self.dice))

    def _judged(self, vehicle: int, update: Update, outcome: Outcome) -> None:
        if not self._is_hostile(vehicle):
            self.clipped += outcome.share < 1
            super()._judged(vehicle, update, outcome)
        elif outcome.verdict == "refused":
            self.refused += 1
