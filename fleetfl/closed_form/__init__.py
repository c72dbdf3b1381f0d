"""A head solved from sums over the fleet's features: one message a vehicle, no steps, no order.

A vehicle sends sum(f f') and sum(f y'), f its features with a 1 at the end, y one-hot labels. (Fed3R,
arXiv:2406.01116; AFL, arXiv:2405.16240.) Numbers are whole multiples of 1/16, so that the fleet's sum
is the same to the bit in any order, and taking a vehicle out leaves exactly what the others give.

The papers solve ridge regression on the labels. From the same sums we solve linear discriminant
analysis: its scores are log likelihoods, so classes that the fleet seldom meets are not passed over
(docs/decisions/0024), and cross-entropy can train on from there.
"""

from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np
import zstandard
from pydantic import Field

from fleetfl import FleetflError
from fleetfl.codecs import CodecError
from fleetfl.config import Section
from fleetfl.vectors import Layout, digest

KIND = "feature_sums"
"""An update whose `codec` says so has such a body in place of a difference."""
WEIGHT, BIAS = "head.weight", "head.bias"
FRACTION_BITS = 4
MOST = 2**44
"""Of one number: a thousand such vehicles still add up in 64 bits."""
FAIR = 1
"""Times the median vehicle's examples, and its sum of squares: sums beyond are scaled down to that. A fleet
whose vehicles have from 40 to 640 frames loses nothing by it, and a liar half of what it does with 2."""
EXAMPLES_ROUNDED = 64
"""Whose sums may be off by one rounding; sums of more are of little weight where they are off by more."""
MOST_LOGIT = 1e4
"""At a class's mean. A head that says more is scaled down, which changes no order."""


class OlderSums(FleetflError, ValueError):
    """Sums from before those that are held of the same vehicle, such as a repeat of what was replaced."""


class OtherFeatures(FleetflError, ValueError):
    """A step has changed the features since: no head can be solved from sums over the former ones."""


class Config(Section):
    vehicles: int = Field(default=8, ge=1)
    """The head is released once the sums of so many are in. Later ones change nothing, and are not kept."""
    shrinkage: float = Field(default=0.03, gt=0)
    """Share of the features' mean variance that is added to each."""
    scale: float = Field(default=0.3, gt=0)
    """Of the logits. Below 1 because features are no Gaussians: scores unscaled are too sure."""


@dataclass(frozen=True)
class SufficientStatistics:
    """Of some frames, in units of 1/16; D counts the constant feature, which is the last."""

    gram: np.ndarray
    """Upper triangle of sum(f f'), row by row, int64 [D (D + 1) / 2]."""
    cross: np.ndarray
    """sum(f y'), int64 [D, C]."""

    @classmethod
    def of(
        cls, features: np.ndarray, labels: np.ndarray, num_classes: int
    ) -> "SufficientStatistics":
        """features: float [N, D - 1]; labels: int [N]."""
        ones = np.ones((len(features), 1))
        rows = np.concatenate([features.astype(np.float64), ones], axis=1)
        gram, cross = rows.T @ rows, rows.T @ np.eye(num_classes)[labels]
        return cls(_whole(gram[np.triu_indices(len(gram))]), _whole(cross))

    @classmethod
    def zero(cls, layout: Layout) -> "SufficientStatistics":
        """Of no frames. Raises ValueError for a layout without a head."""
        num_classes, width = head_shape(layout)
        gram = np.zeros((width + 1) * (width + 2) // 2, np.int64)
        return cls(gram, np.zeros((width + 1, num_classes), np.int64))

    def plus(self, other: "SufficientStatistics", times: int = 1) -> "SufficientStatistics":
        return SufficientStatistics(
            self.gram + times * other.gram, self.cross + times * other.cross
        )

    def times(self, num: int, den: int) -> "SufficientStatistics":
        """num / den of each number, rounded down: in whole numbers, so that all have the same bits."""

        def part(numbers: np.ndarray) -> np.ndarray:
            return (numbers.astype(object) * num // den).astype(np.int64)

        return SufficientStatistics(part(self.gram), part(self.cross))

    def square(self) -> np.ndarray:
        """sum(f f') whole, float64 [D, D], not in units."""
        size = len(self.cross)
        gram = np.zeros((size, size))
        gram[np.triu_indices(size)] = self.gram * 2.0**-FRACTION_BITS
        return gram + np.triu(gram, 1).T

    @property
    def num_examples(self) -> int:
        return int(self.gram[-1]) >> FRACTION_BITS

    @property
    def examples_per_class(self) -> np.ndarray:
        """int64 [C]."""
        return self.cross[-1] >> FRACTION_BITS

    def packed(self, features: bytes) -> bytes:
        """An update's body; `features` (8 bytes) says which features were summed: `features_of`."""
        values = np.concatenate([self.gram, self.cross.ravel()])
        # 0, -1, 1, -2, ... as 0, 1, 2, 3, ...: the high bytes of small numbers are then all zero, and
        # side by side they pack to nothing.
        unsigned = (values << 1 ^ values >> 63).astype("<i8")
        planes = unsigned.view(np.uint8).reshape(-1, 8).T.tobytes()
        return features + zstandard.compress(planes)


def features_in(body: bytes) -> bytes:
    """The 8 bytes that name the features, as they came."""
    return body[:8]


def unpacked(
    body: bytes, layout: Layout, *, features: bytes, num_examples: int
) -> SufficientStatistics:
    """Raises CodecError for a body that is not the sums of so many frames' features of this kind."""
    try:
        return _unpacked(body, layout, features=features, num_examples=num_examples)
    except CodecError:
        raise
    except Exception as broken:  # whatever it is: the body came from anywhere
        raise CodecError(f"sums of {len(body)} bytes: {broken}") from broken


def max_body_bytes(layout: Layout) -> int:
    """No sums of this layout are longer; 0 for a layout without a head."""
    try:
        zero = SufficientStatistics.zero(layout)
    except ValueError:
        return 0
    planes = 8 * (zero.gram.size + zero.cross.size)
    return 8 + planes + planes // 256 + 64  # zstd's own bound


def _unpacked(
    body: bytes, layout: Layout, *, features: bytes, num_examples: int
) -> SufficientStatistics:
    zero = SufficientStatistics.zero(layout)
    size = zero.gram.size + zero.cross.size
    if len(body) > max_body_bytes(layout):
        raise CodecError(f"sums of {len(body)} bytes, expected at most {max_body_bytes(layout)}")
    if features_in(body) != features:
        found = features_in(body).hex()
        raise CodecError(f"sums of features {found}, expected {features.hex()}")
    if zstandard.frame_content_size(body[8:]) != 8 * size:
        raise CodecError(f"sums of another size, expected {size} numbers")
    planes = zstandard.ZstdDecompressor().decompress(
        body[8:], max_output_size=8 * size, allow_extra_data=False
    )
    unsigned = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<u8").ravel()
    values = (unsigned >> 1).astype(np.int64) ^ -(unsigned & 1).astype(np.int64)
    found = SufficientStatistics(
        values[: zero.gram.size], values[zero.gram.size :].reshape(zero.cross.shape)
    )
    if np.abs(values).max() > MOST or (values == np.iinfo(np.int64).min).any():
        raise CodecError(f"sums hold a number beyond {MOST}")
    counted = num_examples << FRACTION_BITS
    if found.gram[-1] != counted or found.cross[-1].sum() != counted or found.cross[-1].min() < 0:
        raise CodecError(f"sums do not add up to {num_examples} examples")
    return found


def head_shape(layout: Layout) -> tuple[int, int]:
    """Classes and features. Raises ValueError for a layout without a head."""
    shapes = dict(layout.shapes)
    if len(shapes.get(WEIGHT, ())) != 2 or BIAS not in shapes:
        raise ValueError(f"no {WEIGHT} and {BIAS} among {sorted(shapes)}")
    num_classes, width = shapes[WEIGHT]
    return num_classes, width


def features_of(vector: np.ndarray, layout: Layout) -> bytes:
    """8 bytes that name the features: all of the vector but its head, and the frozen model, decide them."""
    tensors = layout.unflatten(vector)
    rest = [tensors[name].ravel() for name in sorted(tensors) if name not in (WEIGHT, BIAS)]
    values = digest(np.concatenate([np.zeros(0, np.float32), *rest]))
    model = layout.means("backbone", "weights", "image_size", "preprocessing", "adapter")
    return (sha256(values + model).digest() if model else values)[:8]


def require_consistent(sums: SufficientStatistics) -> None:
    """Raises CodecError for sums that no frames can have, up to what rounding to 1/16 leaves.

    The features of all classes add up to those of all frames; what is left of their squares when the
    classes' means are taken off is a sum of squares, so no direction's is negative. That bounds each
    product by its two squares as well.
    """
    unit, (size, num_classes) = 2.0**-FRACTION_BITS, sums.cross.shape
    counts = sums.cross[-1]
    if (counts & ((1 << FRACTION_BITS) - 1)).any() or sums.cross[:, counts == 0].any():
        raise CodecError("sums of classes with no or with broken numbers of examples")
    gram = sums.square()
    of_all = np.rint(gram[:, -1] / unit)
    # Each sum was rounded once, however many examples it is of; who multiplies them multiplies that too.
    rounded = unit * max(1.0, counts.sum() / (EXAMPLES_ROUNDED << FRACTION_BITS))
    if np.abs(sums.cross.sum(axis=1) - of_all).max() > (num_classes + 1) * rounded / unit:
        raise CodecError("sums of the classes do not add up to the sum of all examples")
    means, within = _within(gram, sums.cross * unit)
    longest = float(np.sqrt((means**2).sum(axis=1).max(initial=0)))
    slack = rounded * (size + num_classes * np.sqrt(size) * longest) + 1e-9 * np.trace(gram)
    if not _is_positive(within + slack * np.eye(size - 1)):
        raise CodecError("sums of squares are smaller than those of the classes' means")


def discriminant(sums: SufficientStatistics, *, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight float64 [C, D - 1] and bias [C] of linear discriminant analysis, all classes equally likely.

    Classes of which the fleet has no frames get zeros. Raises ValueError without any frames.
    """
    unit = 2.0**-FRACTION_BITS
    cross = sums.cross * unit
    size, counts = len(cross), cross[-1]
    seen = counts > 0
    if not seen.any():
        raise ValueError("sums of no frames")
    means, within = _within(sums.square(), cross)
    within /= counts.sum()
    least = shrinkage * max(np.trace(within) / (size - 1), unit)
    within += np.eye(size - 1) * least
    if not _is_positive(within - np.eye(size - 1) * (least / 2)):
        # Rounding, or somebody's art, has left less than nothing in some direction.
        values, directions = np.linalg.eigh(within)
        within = (directions * np.maximum(values, least)) @ directions.T
    solved = np.linalg.solve(within, means.T).T
    scores = -0.5 * (solved * means).sum(axis=1)
    weight, bias = np.zeros((len(counts), size - 1)), np.zeros(len(counts))
    # What all classes have in common changes no probability.
    weight[seen] = solved - solved.mean(axis=0)
    bias[seen] = scores - scores.mean()
    most = np.abs(means @ weight.T + bias).max()
    if not np.isfinite(most):
        raise ValueError("sums whose head is not finite")
    excess = max(1.0, most / MOST_LOGIT)
    return weight / excess, bias / excess


def _within(gram: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the classes seen, float64 [S, D - 1], and the squares about them, [D - 1, D - 1]."""
    counts = cross[-1]
    seen = counts > 0
    means = (cross[:-1, seen] / counts[seen]).T
    return means, gram[:-1, :-1] - (means.T * counts[seen]) @ means


def _is_positive(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


class ClosedFormHead:
    """Owner of the fleet's sums: whole ones a vehicle, of which a later one takes the earlier one's place."""

    def __init__(self, config: Config, layout: Layout, vector: np.ndarray) -> None:
        """`vector`, float32 [P], decides the features. Raises ValueError for a layout without a head."""
        self.config, self.layout = config, layout
        self.features = features_of(vector, layout)
        self.features_without_meaning = features_of(vector, layout.plain)
        """Their name in older versions."""
        self.total = SufficientStatistics.zero(layout)
        self.bodies: dict[str, tuple[int, bytes]] = {}
        """What each vehicle's part of the total came from, so that it can be taken out again."""
        self.weights: dict[str, tuple[int, int]] = {}
        """Each vehicle's number of examples, and sum of all features' squares in units."""
        self.captured: dict[str, int] = {}
        """When the newest frame of each vehicle's sums was taken, UTC seconds."""
        self.is_released = False

    def count(
        self, vehicle: str, body: bytes, num_examples: int, *, captured_to: int, params: np.ndarray
    ) -> np.ndarray | None:
        """Take these sums in; gives the vector with the head, float32 [P], if it is due for `params`.

        Raises OlderSums, OtherFeatures or CodecError, and changes nothing: also if no head can be solved.
        """
        if captured_to < self.captured.get(vehicle, 0):
            raise OlderSums(f"newer sums of {vehicle} are held")
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
                raise CodecError(f"no head can be solved with these sums: {unfit}") from unfit
        self.captured[vehicle] = captured_to
        return solved

    def put(self, vehicle: str, body: bytes, num_examples: int) -> None:
        """Raises CodecError, and changes nothing, for a body that is none of ours."""
        sums = self._unpacked(num_examples, body)
        require_consistent(sums)
        self._put(vehicle, body, num_examples, sums)

    def _put(
        self, vehicle: str, body: bytes, num_examples: int, sums: SufficientStatistics
    ) -> None:
        self.forget(vehicle)
        self.bodies[vehicle] = (num_examples, body)
        self.total = self.total.plus(sums)
        diagonal = np.cumsum([0, *range(len(sums.cross), 1, -1)])
        self.weights[vehicle] = (num_examples, sum(map(int, sums.gram[diagonal])))

    def renamed(self, body: bytes) -> bytes:
        """A body of an older version under the name that these features have now; others as they are."""
        is_older = features_in(body) == self.features_without_meaning
        return self.features + body[len(self.features) :] if is_older else body

    def release(self) -> None:
        """Its head is out, once and for all: keep none of what it was solved from."""
        self.is_released = True
        self.bodies, self.weights, self.total = {}, {}, SufficientStatistics.zero(self.layout)
        self.captured = {}

    def forget(self, vehicle: str) -> bool:
        """Be as if it had never sent anything; False if it has not."""
        known = self.bodies.pop(vehicle, None)
        if known is None:
            return False
        del self.weights[vehicle]
        self.total = self.total.plus(self._unpacked(*known), times=-1)
        return True

    @property
    def is_due(self) -> bool:
        """Enough vehicles are in, and the head was not released yet."""
        return not self.is_released and len(self.bodies) >= self.config.vehicles

    def fits(self, vector: np.ndarray) -> bool:
        """The features are still those of this vector, float32 [P]."""
        return features_of(vector, self.layout) == self.features

    def solved(self, vector: np.ndarray) -> np.ndarray:
        """The vector, float32 [P], with this head in place of its own. Raises ValueError without sums."""
        weight, bias = discriminant(self.fair_total(), shrinkage=self.config.shrinkage)
        tensors = dict(self.layout.unflatten(vector))
        tensors[WEIGHT] = (self.config.scale * weight).astype(np.float32)
        tensors[BIAS] = (self.config.scale * bias).astype(np.float32)
        return self.layout.flatten(tensors)

    def fair_total(self) -> SufficientStatistics:
        """The total, with no vehicle in it for more than FAIR times the one in the middle."""
        total = self.total
        middle = (len(self.weights) - 1) // 2
        limits = [FAIR * sorted(kind)[middle] for kind in zip(*self.weights.values(), strict=True)]
        for vehicle, weights in self.weights.items():
            shares = [(limit, max(1, w)) for limit, w in zip(limits, weights, strict=True)]
            num, den = min(shares, key=lambda share: Fraction(*share))
            if num < den:
                sums = self._unpacked(*self.bodies[vehicle])
                total = total.plus(sums, times=-1).plus(sums.times(num, den))
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


def _whole(sums: np.ndarray) -> np.ndarray:
    return np.rint(sums * 2.0**FRACTION_BITS).astype(np.int64)
