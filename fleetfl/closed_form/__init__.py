"""A classification head in closed form from sufficient statistics: one message a vehicle, in any order.

A vehicle sends sum(f f') and sum(f y'), f its features with a 1 at the end, y one-hot labels. (Fed3R,
arXiv:2406.01116; AFL, arXiv:2405.16240.) `statistics.py` holds and packs them, `solve.py` checks and solves
them, and `ClosedFormHead` here owns those of a fleet.

The papers solve ridge regression on the labels. From the same statistics we solve linear discriminant
analysis: its scores are log likelihoods, so classes that the fleet seldom meets are not passed over
(docs/decisions/0024), and cross-entropy can train on from there.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from pydantic import Field

from fleetfl import FleetflError
from fleetfl.closed_form.solve import discriminant, require_consistent
from fleetfl.closed_form.statistics import BIAS as BIAS
from fleetfl.closed_form.statistics import FRACTION_BITS as FRACTION_BITS
from fleetfl.closed_form.statistics import MOST as MOST
from fleetfl.closed_form.statistics import WEIGHT as WEIGHT
from fleetfl.closed_form.statistics import SufficientStatistics as SufficientStatistics
from fleetfl.closed_form.statistics import features_in as features_in
from fleetfl.closed_form.statistics import features_of as features_of
from fleetfl.closed_form.statistics import max_body_bytes as max_body_bytes
from fleetfl.closed_form.statistics import unpacked as unpacked
from fleetfl.codecs import CodecError
from fleetfl.config import Section
from fleetfl.vectors import Layout

KIND = "feature_sums"  # its name on the wire since the first version
"""Codec name of an update whose body holds sufficient statistics in place of a difference of vectors."""
FAIR = 1
"""Most weight of one vehicle: this many times the median vehicle's examples, and its sum of squares.

Statistics beyond it are scaled down to it. A fleet whose vehicles have from 40 to 640 frames loses nothing by
that, and a liar gains half of what 2 would give."""


class OlderStatistics(FleetflError, ValueError):
    """Statistics older than those already held of the same vehicle, such as a repeat of replaced ones."""


class OtherFeatures(FleetflError, ValueError):
    """Statistics of features that a server step has changed since: no head can be solved from them."""


class Config(Section):
    """Settings of the head in closed form."""

    vehicles: int = Field(default=8, ge=1)
    """Vehicles whose statistics are needed to release the head. More give a better head, later; statistics
    that arrive after the release change nothing and are not kept."""
    shrinkage: float = Field(default=0.03, gt=0)
    """Share of the features' mean variance that is added to every feature's variance. A larger share steadies
    a head from few frames and ignores more of the differences between features."""
    scale: float = Field(default=0.3, gt=0)
    """Factor on the logits; larger values give more confident probabilities. It is below 1 because features
    are not Gaussian, and unscaled scores are overconfident."""


class ClosedFormHead:
    """Owner of the fleet's sufficient statistics; a vehicle's newer statistics replace its older ones."""

    def __init__(self, config: Config, layout: Layout, vector: np.ndarray) -> None:
        """`vector`, float32 [P], decides the features. Raises ValueError for a layout without a head."""
        self.config, self.layout = config, layout
        self.features = features_of(vector, layout)
        self.features_without_meaning = features_of(vector, layout.plain)
        """The 8 bytes by which older versions, whose layouts tell shapes alone, name the same features."""
        self.total = SufficientStatistics.zero(layout)
        self.bodies: dict[str, tuple[int, bytes]] = {}
        """Number of examples and update body of each vehicle counted in the total, kept to subtract it
        again."""
        self.weights: dict[str, tuple[int, int]] = {}
        """Number of examples of each vehicle, and the sum of its features' squares in units of 1/16."""
        self.captured: dict[str, int] = {}
        """Capture time, UTC seconds, of the newest frame in each vehicle's statistics."""
        self.is_released = False

    def count(
        self, vehicle: str, body: bytes, num_examples: int, *, captured_to: int, params: np.ndarray
    ) -> np.ndarray | None:
        """Take in one vehicle's statistics; gives `params` with the head, float32 [P], once the head is due.

        Raises OlderStatistics, OtherFeatures or CodecError, changing nothing, also if none can be solved.
        """
        if captured_to < self.captured.get(vehicle, 0):
            raise OlderStatistics(f"newer statistics of {vehicle} are held")
        if self.is_released:
            require_consistent(self._unpacked(num_examples, body))
            return None
        if not self.fits(params):
            raise OtherFeatures("a step came first, and has changed the features")
        before = (dict(self.bodies), dict(self.weights), self.total)
        self.put(vehicle, body, num_examples)
        solved = None
        if self.is_due:
            try:
                solved = self.solved(params)
            except Exception as unfit:
                self.bodies, self.weights, self.total = before
                raise CodecError(f"no head can be solved with these statistics: {unfit}") from unfit
        self.captured[vehicle] = captured_to
        return solved

    def put(self, vehicle: str, body: bytes, num_examples: int) -> None:
        """Replace the vehicle's statistics. Raises CodecError, and changes nothing, for an unfit body."""
        statistics = self._unpacked(num_examples, body)
        require_consistent(statistics)
        self._put(vehicle, body, num_examples, statistics)

    def _put(
        self, vehicle: str, body: bytes, num_examples: int, statistics: SufficientStatistics
    ) -> None:
        self.forget(vehicle)
        self.bodies[vehicle] = (num_examples, body)
        self.total = self.total.plus(statistics)
        diagonal = np.cumsum([0, *range(len(statistics.cross), 1, -1)])
        self.weights[vehicle] = (num_examples, sum(map(int, statistics.gram[diagonal])))

    def renamed(self, body: bytes) -> bytes:
        """The body with the features' present name if an older version named them; any other as it is."""
        is_older = features_in(body) == self.features_without_meaning
        return self.features + body[len(self.features) :] if is_older else body

    def release(self) -> None:
        """Note that the head is released, once and for all, and drop the statistics behind it."""
        self.is_released = True
        self.bodies, self.weights, self.total = {}, {}, SufficientStatistics.zero(self.layout)
        self.captured = {}

    def forget(self, vehicle: str) -> bool:
        """Subtract the vehicle's statistics from the total exactly; False if it has sent none."""
        known = self.bodies.pop(vehicle, None)
        if known is None:
            return False
        del self.weights[vehicle]
        self.total = self.total.plus(self._unpacked(*known), times=-1)
        return True

    @property
    def is_due(self) -> bool:
        """Whether enough vehicles have sent statistics and the head was not released yet."""
        return not self.is_released and len(self.bodies) >= self.config.vehicles

    def fits(self, vector: np.ndarray) -> bool:
        """Whether `vector`, float32 [P], still gives the features that the statistics are of."""
        return features_of(vector, self.layout) == self.features

    def solved(self, vector: np.ndarray) -> np.ndarray:
        """`vector`, float32 [P], with the solved head in place of its own. Raises ValueError without
        statistics.
        """
        weight, bias = discriminant(self.fair_total(), shrinkage=self.config.shrinkage)
        tensors = dict(self.layout.unflatten(vector))
        tensors[WEIGHT] = (self.config.scale * weight).astype(np.float32)
        tensors[BIAS] = (self.config.scale * bias).astype(np.float32)
        return self.layout.flatten(tensors)

    def fair_total(self) -> SufficientStatistics:
        """The fleet's total in which no vehicle weighs more than FAIR times the median vehicle."""
        total = self.total
        middle = (len(self.weights) - 1) // 2
        limits = [FAIR * sorted(kind)[middle] for kind in zip(*self.weights.values(), strict=True)]
        for vehicle, weights in self.weights.items():
            shares = [(limit, max(1, w)) for limit, w in zip(limits, weights, strict=True)]
            num, den = min(shares, key=lambda share: Fraction(*share))
            if num < den:
                whole = self._unpacked(*self.bodies[vehicle])
                total = total.plus(whole, times=-1).plus(whole.times(num, den))
        return total

    def _unpacked(self, num_examples: int, body: bytes) -> SufficientStatistics:
        return unpacked(body, self.layout, features=self.features, num_examples=num_examples)

    def snapshot(self) -> dict[str, Any]:
        bodies = [[vehicle, *known] for vehicle, known in self.bodies.items()]
        return {
            "features": self.features,
            "bodies": bodies,
            "captured": dict(self.captured),
            "is_released": self.is_released,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.is_released = state["is_released"]
        if state["features"] != self.features_without_meaning:
            self.features = state["features"]
        self.bodies, self.weights, self.total = {}, {}, SufficientStatistics.zero(self.layout)
        self.captured = dict(state.get("captured", {}))
        # An older release went on keeping them once its head was out.
        for vehicle, num_examples, before in () if self.is_released else state["bodies"]:
            body = self.renamed(before)
            # An older release has counted some that would be refused now; those stay, within their weight.
            self._put(vehicle, body, num_examples, self._unpacked(num_examples, body))
