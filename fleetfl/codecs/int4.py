"""Two values a byte, -7 to 7, with one scale a block: an eighth of float32, and zstd finds some more."""

from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, squeeze, unsqueeze
from fleetfl.codecs._blocks import MAX_BLOCK, MIN_BLOCK, max_head_bytes, parted, quantized, scaled
from fleetfl.vectors import Layout

OFFSET = 8
"""Offset added to each value from -7 to 7, so that it is stored as 1 to 15."""


class Config(CodecConfig):
    """Settings of the codec int4."""

    kind: Literal["int4"] = "int4"
    block: int = Field(default=256, ge=MIN_BLOCK, le=MAX_BLOCK)
    """Number of values that share a scale (their largest magnitude / 7, float32). Larger blocks take fewer
    bytes and are less exact."""
    level: int = Field(default=3, ge=0, le=19)
    """zstd compression level, 0 to 19; higher levels are smaller and slower, and 0 leaves zstd out."""

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(0.5 / 7, "max")

    def build(self, layout: Layout) -> "Int4":
        return Int4(self, layout)


class Int4:
    """Body: block size, scales, pairs squeezed; the first of a pair in the lower half of its byte."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.block, self.level, self.size = config.block, config.level, layout.size
        self.max_body_bytes = max_head_bytes(self.size) + 1 + -(-self.size // 2)

    def encode(self, vector: np.ndarray) -> bytes:
        head, values = quantized(vector, self.block, 7)
        halves = np.pad(values + OFFSET, (0, self.size % 2)).astype(np.uint8)
        pairs = halves[0::2] | halves[1::2] << 4
        return head + squeeze(pairs.tobytes(), self.level)

    def decode(self, body: bytes) -> np.ndarray:
        block, scale, rest = parted(body, self.size)
        num_pairs = -(-self.size // 2)
        pairs = np.frombuffer(unsqueeze(rest, num_pairs), np.uint8)
        if pairs.size != num_pairs:
            raise CodecError(f"{pairs.size} bytes for {self.size} values, expected {num_pairs}")
        values = np.empty((num_pairs, 2), np.int8)
        values[:, 0] = pairs & 15
        values[:, 1] = pairs >> 4
        values -= OFFSET
        return scaled(values.ravel()[: self.size], scale, block)
