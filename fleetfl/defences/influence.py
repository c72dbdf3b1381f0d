"""Bounds how far one vehicle may move the model: a few times what the fleet's updates usually do.

*A single update.* Its norm is compared with the median of the newest norms that were counted, one a vehicle.
An update beyond `factor` times that is scaled down to it and counted: a direction may be right where a length
is not. The norm after that is remembered, so the median can grow by no more than `factor` while half of
the fleet reports, and no vehicle alone can move it, whenever and however often it reports. Before QUORUM
vehicles are known there is no median that one of them does not own: the bound is then a share of the first
vector's norm.

*Many updates of one vehicle.* Stacked they may be no longer than the vehicle's share of a step: twice the
median, times updates a step over vehicles heard of lately, rounded up. What a vehicle has used of its share
comes back only as others report. So a buffer filled by one vehicle moves the model as far as two updates, and
a flood moves it no farther; where one vehicle is alone, all that it sends counts. How far a vehicle may get
ahead of all others is for `fleetfl/defences/pace.py`.

Norms are summed in float32 in an order that depends on no processor, so that a replay clips by the same bits.
"""

import math
from collections import OrderedDict
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from pydantic import Field

from fleetfl.config import Section

QUORUM = 3
"""Number of known vehicles from which on no single one of them can be the median."""
BLOCK = 1 << 18
"""Number of values squared at a time."""
LANE = 2048
"""Number of partial sums that are carried side by side."""
LEAST_RMS = 0.01
"""Least root mean square assumed of the first vector: one of zeros would allow no update any length."""
STILL = 1e-3
"""Norm up to which an update is never clipped, as a share of the first vector's norm: without it a fleet
that has converged could not learn again."""
SENSE = 1e3
"""Largest norm of a model or an update, as a multiple of the first vector's norm or of the norm of ones."""
LATELY = 64
"""Number of newest counted updates; a vehicle without one among them no longer has a share of a step."""
TOGETHER = 2.0
"""Total norm of a vehicle's updates in one share of a step, in median norms; the bound if that is more."""
LEAST_TURN = 4
"""Number of updates that vehicles share where every arrival makes a step."""
FIRST_EXAMPLES = 1024
"""Largest number of examples believed of an update before QUORUM vehicles are known."""


class Config(Section):
    """Bounds on one vehicle's influence."""

    factor: float = Field(default=1.5, gt=1, le=100)
    """Largest norm of an update, as a multiple of the fleet's median norm; longer updates are scaled down to
    it. Smaller is safer, and clips more of an honest fleet's longest updates."""
    window: int = Field(default=128, ge=QUORUM, le=100_000)
    """Number of vehicles whose newest norm is remembered, those heard of last. More of them follow a large
    fleet's median better and slow down each update a little."""
    start: float = Field(default=0.25, gt=0)
    """Largest norm of an update before three vehicles are known, as a share of the first vector's norm. A
    larger share trusts the first vehicles more."""
    ahead: int = Field(default=16, ge=2, lt=LATELY)
    """Number of updates that a vehicle may be ahead of all others together, as after a tunnel; further ones
    are refused (`declined`) until others report or an hour passes. No limit applies before three vehicles
    have reported. A larger number lets one vehicle make more versions alone."""


@dataclass(frozen=True)
class Believed:
    """The part of an update that is counted after its bounds are applied."""

    share: float
    """Factor on the update's delta; 1 where it is within its bounds."""
    norm: float
    """Norm of the delta, at most the bound."""
    num_examples: int
    used: float
    """The vehicle's use of its share, this update included; a share is 1, or more where few share a step."""


@dataclass(frozen=True)
class Known:
    """The newest counted update of a vehicle."""

    norm: float
    num_examples: int
    number: int
    """Ordinal of the update among all that were counted."""
    used: float


class Bounds:
    """Bounds on updates, from what was counted of the newest update of each vehicle heard of lately."""

    def __init__(self, config: Config | None, params: np.ndarray, *, turn: int) -> None:
        """`params`, float32 [P], is the first vector; `turn` the updates of a step, 0 where the aggregator
        looks itself after who counts how often. Without `config` only examples are bounded.
        """
        self.clips, self.config = config is not None, config or Config()
        self.turn = max(LEAST_TURN, turn) if turn else 0
        root = math.sqrt(params.size)
        first = norm_of(params)
        self.scale = max(first, LEAST_RMS * root)
        self.most = SENSE * max(first, root)
        """Largest norm that an update or a model can have."""
        self.number = 0
        """Number of updates counted so far."""
        self.newest: OrderedDict[str, Known] = OrderedDict()
        """Newest counted update of each vehicle; the vehicle heard of last is last."""

    def believed(self, vehicle: str, norm: float, num_examples: int) -> Believed:
        """The part to count of an update of norm `norm` that claims `num_examples` examples."""
        usual, examples = self._medians()
        if not self.clips:
            return Believed(1.0, norm, self._examples(num_examples, examples, 1.0), 0.0)
        bound = self._bound(usual)
        length = min(norm, bound)
        free, used = self._left(vehicle)
        one = max(bound, bound * TOGETHER / self.config.factor)
        counted = min(length, free * one)
        share = counted / norm if counted < norm else 1.0
        # Where updates are weighed by examples, length times weight is what a vehicle moves.
        longer = max(1.0, length / usual) if usual > 0 else 1.0
        believed = self._examples(num_examples, examples, longer)
        return Believed(share, length, believed, used + counted / one)

    def counted(self, vehicle: str, believed: Believed) -> None:
        """Remember what was counted of the vehicle's newest update."""
        self.number += 1
        self.newest.pop(vehicle, None)
        self.newest[vehicle] = Known(
            believed.norm, believed.num_examples, self.number, believed.used
        )
        while len(self.newest) > self.config.window:
            self.newest.popitem(last=False)

    def forget(self, vehicle: str) -> None:
        """Drop what is remembered of the vehicle's updates."""
        self.newest.pop(vehicle, None)

    def _bound(self, usual: float) -> float:
        if len(self.newest) < QUORUM:
            return self.config.start * self.scale
        return max(self.config.factor * usual, STILL * self.scale)

    def _examples(self, claimed: int, usual: int, longer: float) -> int:
        if len(self.newest) < QUORUM:
            return min(claimed, FIRST_EXAMPLES)
        return min(claimed, max(1, int(self.config.factor * usual / longer)))

    def _left(self, vehicle: str) -> tuple[float, float]:
        """Unused and used part of a vehicle's share of a step; the unused one may be infinite."""
        lately = 0
        for each in reversed(self.newest.values()):
            if each.number <= self.number - LATELY:
                break
            lately += 1
        known = self.newest.get(vehicle)
        lately += known is None or known.number <= self.number - LATELY
        if not self.turn or lately == 1:
            return math.inf, 0.0
        share = -(-self.turn // lately)
        if known is None:
            return share, 0.0
        # Of equal pace, each gets one back before its next update, however many share the step.
        back = max(share / self.turn, 1 / (lately - 1))
        used = max(0.0, known.used - (self.number - known.number) * back)
        return max(0.0, share - used), used

    def _medians(self) -> tuple[float, int]:
        """Median norm and number of examples; the lower of two in the middle, as one may be forged."""
        if not self.newest:
            return 0.0, 0
        middle = (len(self.newest) - 1) // 2
        norms = sorted(each.norm for each in self.newest.values())
        examples = sorted(each.num_examples for each in self.newest.values())
        return norms[middle], examples[middle]

    def snapshot(self) -> dict[str, Any]:
        newest = [(vehicle, *astuple(known)) for vehicle, known in self.newest.items()]
        return {"scale": self.scale, "most": self.most, "number": self.number, "newest": newest}

    def restore(self, state: dict[str, Any]) -> None:
        self.scale, self.most, self.number = state["scale"], state["most"], state["number"]
        self.newest = OrderedDict((name, Known(*known)) for name, *known in state["newest"])


def norm_of(vector: np.ndarray) -> float:
    """Euclidean norm of a vector, float32 [P]; infinite with values beyond 1e19, whose squares overflow."""
    scratch = np.empty(min(vector.size, BLOCK) + LANE, np.float32)
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for start in range(0, vector.size, BLOCK):
            part = vector[start : start + BLOCK]
            whole = -(-part.size // LANE) * LANE
            scratch[part.size : whole] = 0
            np.multiply(part, part, out=scratch[: part.size])
            lanes = np.add.reduce(scratch[:whole].reshape(-1, LANE), axis=0)
            total += float(np.add.reduce(lanes))
    return math.sqrt(total) if math.isfinite(total) else math.inf
