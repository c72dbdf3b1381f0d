"""A fleet in which one vehicle sends what it likes. It has a key, so what it says is its own."""

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
"""The most that the wire takes."""


@dataclass(frozen=True)
class Forgery:
    """What a hostile vehicle makes of an honest training."""

    layout: Layout
    vector: np.ndarray
    """float32 [P]: the version it was trained from."""
    delta: np.ndarray
    """float32 [P]: what the training came to."""
    dice: np.random.Generator


def huge(at: Forgery) -> np.ndarray:
    return np.full(at.layout.size, 1e4)


def limit(at: Forgery) -> np.ndarray:
    """Finite, and near the largest float32."""
    return np.full(at.layout.size, 3e38)


def flipped(at: Forgery) -> np.ndarray:
    return -10.0 * at.delta


def rotated(at: Forgery) -> np.ndarray:
    """Ten times the way to a head in which each class has the weights of the one before."""
    tensors = dict(at.layout.unflatten(at.vector))
    for name in (closed_form.WEIGHT, closed_form.BIAS):
        tensors[name] = np.roll(tensors[name], 1, axis=0)
    return 10.0 * (at.layout.flatten(tensors) - at.vector)


def noise(at: Forgery) -> np.ndarray:
    return at.dice.normal(size=at.layout.size)


def weighty(at: Forgery) -> np.ndarray:
    """The opposite of what it learned, in the name of as many examples as the wire takes."""
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
    """The update as this kind of vehicle sends it."""
    body = decoder("float32", at.layout).encode(KINDS[kind](at).astype(np.float32))
    claimed = MOST_EXAMPLES if KINDS[kind] is weighty else update.num_examples
    return replace(update, codec="float32", body=body, num_examples=claimed)


def forged_statistics(sums: closed_form.SufficientStatistics) -> closed_form.SufficientStatistics:
    """Those of a million times the frames, each class in the name of the next."""
    times = 2**20
    return closed_form.SufficientStatistics(
        times * sums.gram, np.roll(times * sums.cross, 1, axis=1)
    )


class HostileFleet(LockstepFleet):
    """Of which the last vehicle sends forgeries; without a kind it is as honest as the others."""

    def __init__(
        self, fleet: str, coordinator: Coordinator, *parts: Any, kind: str | None, **about: Any
    ):
        super().__init__(fleet, coordinator, *parts, **about)
        self.kind = kind
        self.dice = np.random.default_rng(self.seed)
        self.refused = 0
        self.clipped = 0
        """Honest updates that were."""

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
