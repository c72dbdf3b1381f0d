"""Sufficient statistics of features and labels, as whole numbers, and the bytes that carry them.

Numbers are whole multiples of 1/16, so that the fleet's total is the same to the bit in any order, and
taking a vehicle out leaves exactly what the others give.
"""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import zstandard

from fleetfl.codecs import CodecError
from fleetfl.vectors import Layout, digest

WEIGHT, BIAS = "head.weight", "head.bias"
FRACTION_BITS = 4
MOST = 2**44
"""Largest magnitude of a single number: a thousand vehicles with such numbers still add up in 64 bits."""


@dataclass(frozen=True)
class SufficientStatistics:
    """Sums over some frames' features and labels, in units of 1/16; D counts the constant feature too."""

    gram: np.ndarray
    """Upper triangle of sum(f f'), row by row, int64 [D (D + 1) / 2]."""
    cross: np.ndarray
    """sum(f y'), int64 [D, C]."""

    @classmethod
    def of(
        cls, features: np.ndarray, labels: np.ndarray, num_classes: int
    ) -> "SufficientStatistics":
        """The statistics of features, float [N, D - 1], and labels, int [N] below `num_classes`."""
        ones = np.ones((len(features), 1))
        rows = np.concatenate([features.astype(np.float64), ones], axis=1)
        gram, cross = rows.T @ rows, rows.T @ np.eye(num_classes)[labels]
        return cls(_whole(gram[np.triu_indices(len(gram))]), _whole(cross))

    @classmethod
    def zero(cls, layout: Layout) -> "SufficientStatistics":
        """The statistics of no frames at all. Raises ValueError for a layout without a head."""
        num_classes, width = head_shape(layout)
        gram = np.zeros((width + 1) * (width + 2) // 2, np.int64)
        return cls(gram, np.zeros((width + 1, num_classes), np.int64))

    def plus(self, other: "SufficientStatistics", times: int = 1) -> "SufficientStatistics":
        """The sum of both; `other` is counted `times` times, -1 to subtract it."""
        return SufficientStatistics(
            self.gram + times * other.gram, self.cross + times * other.cross
        )

    def times(self, num: int, den: int) -> "SufficientStatistics":
        """Each number times num / den, rounded down; whole numbers alone, so that every machine has the same
        bits.
        """

        def part(numbers: np.ndarray) -> np.ndarray:
            return (numbers.astype(object) * num // den).astype(np.int64)

        return SufficientStatistics(part(self.gram), part(self.cross))

    def square(self) -> np.ndarray:
        """The whole matrix sum(f f'), float64 [D, D], as plain values rather than units of 1/16."""
        size = len(self.cross)
        gram = np.zeros((size, size))
        gram[np.triu_indices(size)] = self.gram * 2.0**-FRACTION_BITS
        return gram + np.triu(gram, 1).T

    @property
    def num_examples(self) -> int:
        """Number of frames that were summed."""
        return int(self.gram[-1]) >> FRACTION_BITS

    @property
    def examples_per_class(self) -> np.ndarray:
        """Number of frames of each class, int64 [C]."""
        return self.cross[-1] >> FRACTION_BITS

    def packed(self, features: bytes) -> bytes:
        """The body of an update. `features`, 8 bytes from `features_of`, says which features were summed."""
        values = np.concatenate([self.gram, self.cross.ravel()])
        # 0, -1, 1, -2, ... as 0, 1, 2, 3, ...: the high bytes of small numbers are then all zero, and
        # side by side they pack to nothing.
        unsigned = (values << 1 ^ values >> 63).astype("<i8")
        planes = unsigned.view(np.uint8).reshape(-1, 8).T.tobytes()
        return features + zstandard.compress(planes)


def features_in(body: bytes) -> bytes:
    """The 8 bytes at the start of a body that name its features; not checked."""
    return body[:8]


def unpacked(
    body: bytes, layout: Layout, *, features: bytes, num_examples: int
) -> SufficientStatistics:
    """The statistics in a body. Raises CodecError unless they are of `num_examples` frames' `features`."""
    try:
        return _unpacked(body, layout, features=features, num_examples=num_examples)
    except CodecError:
        raise
    except Exception as broken:  # whatever it is: the body came from anywhere
        raise CodecError(f"statistics of {len(body)} bytes: {broken}") from broken


def max_body_bytes(layout: Layout) -> int:
    """Largest size in bytes of a body for this layout; 0 for a layout without a head."""
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
        raise CodecError(
            f"statistics of {len(body)} bytes, expected at most {max_body_bytes(layout)}"
        )
    if features_in(body) != features:
        found = features_in(body).hex()
        raise CodecError(f"statistics of features {found}, expected {features.hex()}")
    if zstandard.frame_content_size(body[8:]) != 8 * size:
        raise CodecError(f"statistics of another size, expected {size} numbers")
    planes = zstandard.ZstdDecompressor().decompress(
        body[8:], max_output_size=8 * size, allow_extra_data=False
    )
    unsigned = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<u8").ravel()
    values = (unsigned >> 1).astype(np.int64) ^ -(unsigned & 1).astype(np.int64)
    found = SufficientStatistics(
        values[: zero.gram.size], values[zero.gram.size :].reshape(zero.cross.shape)
    )
    if np.abs(values).max() > MOST or (values == np.iinfo(np.int64).min).any():
        raise CodecError(f"statistics hold a number beyond {MOST}")
    counted = num_examples << FRACTION_BITS
    if found.gram[-1] != counted or found.cross[-1].sum() != counted or found.cross[-1].min() < 0:
        raise CodecError(f"statistics do not add up to {num_examples} examples")
    return found


def head_shape(layout: Layout) -> tuple[int, int]:
    """Numbers of classes and of features of the head. Raises ValueError for a layout without one."""
    shapes = dict(layout.shapes)
    if len(shapes.get(WEIGHT, ())) != 2 or BIAS not in shapes:
        raise ValueError(f"no {WEIGHT} and {BIAS} among {sorted(shapes)}")
    num_classes, width = shapes[WEIGHT]
    return num_classes, width


def features_of(vector: np.ndarray, layout: Layout) -> bytes:
    """8 bytes that name the features which `vector`, float32 [P], gives: they depend on all of it but
    the head, and on the frozen model.
    """
    tensors = layout.unflatten(vector)
    rest = [tensors[name].ravel() for name in sorted(tensors) if name not in (WEIGHT, BIAS)]
    values = digest(np.concatenate([np.zeros(0, np.float32), *rest]))
    model = layout.means("backbone", "weights", "image_size", "preprocessing", "adapter")
    return (sha256(values + model).digest() if model else values)[:8]


def _whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 2.0**FRACTION_BITS).astype(np.int64)
