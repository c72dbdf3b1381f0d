"""The upper 16 bits of each float32, rounded to nearest even: its range, three decimal digits.

Signs and exponents stand in one byte plane, which zstd halves, mantissas in another, in which it
finds nothing. A value that would round to infinity becomes the largest bfloat16.
"""

import struct
from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, require_finite, squeeze, unsqueeze
from fleetfl.vectors import Layout

INFINITY = 0x7F80


class Config(CodecConfig):
    """Settings of the codec bfloat16."""

    kind: Literal["bfloat16"] = "bfloat16"
    level: int = Field(default=3, ge=0, le=19)
    """zstd compression level, 0 to 19; higher levels are smaller and slower, and 0 leaves zstd out."""

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(2**-8, "max")

    def build(self, layout: Layout) -> "BFloat16":
        return BFloat16(self, layout)


def rounded(values: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16, uint16 [N], of finite float32 [N]."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    overflows = (halves & INFINITY) == INFINITY
    return halves - overflows


def widened(halves: np.ndarray) -> np.ndarray:
    """float32 [N] of bfloat16 bits, uint16 [N]. Raises CodecError if one is not finite."""
    if ((halves & INFINITY) == INFINITY).any():
        raise CodecError("a bfloat16 is not finite")
    return (halves.astype(np.uint32) << 16).view(np.float32)


class BFloat16:
    """Body: length of the first plane (uint32), both planes squeezed."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.level, self.size = config.level, layout.size
        self.max_body_bytes = 4 + 2 * (1 + self.size)

    def encode(self, vector: np.ndarray) -> bytes:
        halves = rounded(require_finite(vector))
        upper, lower = (halves >> 8).astype(np.uint8), halves.astype(np.uint8)
        exponents = squeeze(upper.tobytes(), self.level)
        return struct.pack("<I", len(exponents)) + exponents + squeeze(lower.tobytes(), self.level)

    def decode(self, body: bytes) -> np.ndarray:
        if len(body) < 4:
            raise CodecError(f"{len(body)} bytes, expected a plane's length first")
        end = 4 + struct.unpack_from("<I", body)[0]
        view = memoryview(body)
        upper, lower = self._plane(view[4:end]), self._plane(view[end:])
        return widened(upper.astype(np.uint16) << 8 | lower)

    def _plane(self, part: memoryview) -> np.ndarray:
        plane = np.frombuffer(unsqueeze(part, self.size), np.uint8)
        if plane.size != self.size:
            raise CodecError(f"a plane of {plane.size} bytes, expected {self.size}")
        return plane
