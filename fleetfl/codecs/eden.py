"""EDEN, 1 to 4 bits a value: rotate at random, round to a codebook, scale (arXiv:2108.08842).

R is a Hadamard transform after random signs, so that the values of Rx are nearly normal whatever x
is; q rounds Rx * sqrt(n) / |x| to the Lloyd-Max codebook of N(0, 1). The scale S of
x^ = S * R^-1 q makes x^ unbiased, |x|^2 / <Rx, q>, or nearest to x, <Rx, q> / |q|^2. |x^ - x|^2 / |x|^2
is .571 .133 .0358 .0096 for 1 to 4 bits unbiased, and .363 .117 .0345 .0095 by least error. Averages over
many vehicles want the first, error feedback the second.

Vectors have any length and a Hadamard transform a power of two: the vector is cut into blocks of
65,536, the rest into its powers of two down to 64, and what is left is padded to one. A block has
its own scale.
"""

import struct
from typing import Literal
from zlib import crc32

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, require_finite
from fleetfl.codecs._hadamard import signs, transform
from fleetfl.codecs._planes import pack, unpack
from fleetfl.vectors import Layout

BLOCK, SMALL = 65_536, 64
MAX_BITS = 4
POSITIVE_CODES = (
    (0.79788456,),
    (0.45278003, 1.51041761),
    (0.24509418, 0.75600528, 1.34390928, 2.1519457),
    (0.12839503, 0.3880483, 0.65675912, 0.94234046, 1.2562312, 1.61804639, 2.06901723, 2.73258957),
)
CODEBOOKS = [
    np.array([-code for code in codes[::-1]] + list(codes), np.float32) for codes in POSITIVE_CODES
]
"""Lloyd-Max codebooks for 1 to 4 bits, each float32 [2**bits], ascending."""
ERRORS = {
    "unbiased": (0.5708, 0.1331, 0.03578, 0.00959),
    "least_error": (0.3634, 0.1175, 0.03455, 0.0095),
}
"""Expected |x^ - x|^2 / |x|^2 for many values, by scale and for 1 to 4 bits."""
MAX_FACTOR = np.finfo(np.float32).max / np.float32(4 * BLOCK)
"""Largest factor of a block: a sum of BLOCK codes times it is still finite."""
NEGLIGIBLE = 1e-30
"""Norm below which a block becomes zeros, where the vector's largest value is about 1."""


class Config(CodecConfig):
    """Settings of the codec eden."""

    kind: Literal["eden"] = "eden"
    bits: int = Field(default=1, ge=1, le=MAX_BITS)
    """Number of bits for each value; more bits are more exact and take more bytes."""
    scale: Literal["unbiased", "least_error"] = "unbiased"
    """Aim of the scale: `unbiased` suits averages over many vehicles, `least_error` suits error feedback."""
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    """Seed of the random signs; None takes the vector's CRC-32, which differs from update to update."""

    @property
    def fidelity(self) -> Fidelity:
        # Few values stray from the error of many; 15 % holds from 255 normal values on.
        error = 1.15 * ERRORS[self.scale][self.bits - 1] ** 0.5
        return Fidelity(error, "l2", unbiased=self.scale == "unbiased")

    def build(self, layout: Layout) -> "Eden":
        return Eden(self, layout)


def block_sizes(size: int) -> list[int]:
    """Powers of two that hold `size` values, 31 of them padding at most."""
    sizes = [BLOCK] * (size // BLOCK)
    rest = size % BLOCK
    sizes += [1 << bit for bit in range(15, 5, -1) if rest >> bit & 1]
    if rest % SMALL:
        sizes.append(1 << (rest % SMALL - 1).bit_length())
    return sizes


class Eden:
    """Body: bits (uint8), seed (uint32), one factor a block (float32), codes as bit planes."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.size = config, layout.size
        self.blocks, self.padded = [], 0
        for size in block_sizes(self.size):
            self.blocks.append((slice(self.padded, self.padded + size), size))
            self.padded += size
        self.max_body_bytes = 5 + 4 * len(self.blocks) + MAX_BITS * -(-self.padded // 8)

    def encode(self, vector: np.ndarray) -> bytes:
        vector, bits = require_finite(vector), self.config.bits
        seed = crc32(vector.tobytes()) if self.config.seed is None else self.config.seed
        # Squares of 1e30 are out of float32's range. Powers of two scale without rounding.
        exponent = int(np.clip(np.frexp(np.abs(vector).max(initial=0))[1], -125, 126))
        rotated = np.zeros(self.padded, np.float32)
        np.multiply(vector, np.float32(2.0**-exponent), out=rotated[: self.size])
        rotated *= signs(seed, self.padded)
        norms = [self._normalize(rotated[at]) for at, _ in self.blocks]
        codebook = CODEBOOKS[bits - 1]
        codes = np.zeros(self.padded, np.uint8)
        for threshold in (codebook[1:] + codebook[:-1]) / 2:
            codes += rotated > threshold
        rounded = codebook.take(codes)
        factors = np.zeros(len(self.blocks))
        for number, (norm, (at, size)) in enumerate(zip(norms, self.blocks, strict=True)):
            if norm == 0:
                continue
            likeness = _dot(rotated[at], rounded[at])
            if self.config.scale == "unbiased":
                factors[number] = norm / likeness
            else:
                factors[number] = norm * likeness / (size * _dot(rounded[at], rounded[at]))
        factors *= 2.0**exponent
        if factors.max(initial=0) > MAX_FACTOR:
            raise CodecError(f"magnitude {np.abs(vector).max()}, expected at most 9e32")
        return struct.pack("<BI", bits, seed) + factors.astype("<f4").tobytes() + pack(codes, bits)

    def _normalize(self, values: np.ndarray) -> float:
        """Rotate these signed values, float32 [n], in place and to variance 1; their former norm."""
        norm = _dot(values, values) ** 0.5
        if norm < NEGLIGIBLE:
            return 0.0
        values[:] = transform(_square(values)).ravel()
        values *= np.float32(1 / norm)
        return norm

    def decode(self, body: bytes) -> np.ndarray:
        start = 5 + 4 * len(self.blocks)
        if len(body) < start:
            raise CodecError(f"{len(body)} bytes, expected {len(self.blocks)} factors first")
        bits, seed = struct.unpack_from("<BI", body)
        if not 1 <= bits <= MAX_BITS:
            raise CodecError(f"{bits} bits a value, expected 1 to {MAX_BITS}")
        factors = np.frombuffer(body, "<f4", len(self.blocks), 5).astype(np.float32)
        if not (np.abs(factors) <= MAX_FACTOR).all():
            raise CodecError(f"a block's factor is not within {MAX_FACTOR}")
        codes = unpack(memoryview(body)[start:], bits, self.padded)
        vector = CODEBOOKS[bits - 1].take(codes, mode="clip")
        for factor, (at, _) in zip(factors, self.blocks, strict=True):
            np.multiply(transform(_square(vector[at], turned=True)).ravel(), factor, out=vector[at])
        vector *= signs(seed, self.padded)
        return vector[: self.size]


def _dot(left: np.ndarray, right: np.ndarray) -> float:
    # In float64, so that whoever packs a vector gets the same float32 factor, and small ones count.
    return float(np.multiply(left, right, dtype=np.float64).sum())


def _square(values: np.ndarray, *, turned: bool = False) -> np.ndarray:
    """A block as [A, B], or turned [B, A], which is what the transform makes of [A, B]."""
    rows = 1 << values.size.bit_length() // 2
    return values.reshape(-1, rows) if turned else values.reshape(rows, -1)
