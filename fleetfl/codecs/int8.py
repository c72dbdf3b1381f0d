"""int8 with one scale a block: a quarter of float32, error at most half a step of the block's scale.

Updates use the range of int8 so evenly that zstd saves a hundredth: their values stand as they are
and decode without a copy.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, squeeze, unsqueeze
from fleetfl.codecs._blocks import MAX_BLOCK, MIN_BLOCK, max_head_bytes, parted, quantized, scaled
from fleetfl.vectors import Layout


class Config(CodecConfig):
    """Settings of the codec int8."""

    kind: Literal["int8"] = "int8"
    block: int = Field(default=256, ge=MIN_BLOCK, le=MAX_BLOCK)
    """Number of values that share a scale (their largest magnitude / 127, float32). Larger blocks take fewer
    bytes and are less exact."""
    level: int = Field(default=3, ge=0, le=19)
    """zstd compression level, 0 to 19; higher levels are smaller and slower, and 0 leaves zstd out."""

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(0.5 / 127, "max")

    def build(self, layout: Layout) -> "Int8":
        return Int8(self, layout)


class Int8:
    """Body: block size, scales, values squeezed."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.block, self.level, self.size = config.block, config.level, layout.size
        self.max_body_bytes = max_head_bytes(self.size) + 1 + self.size

    def encode(self, vector: np.ndarray) -> bytes:
        head, values = quantized(vector, self.block, 127)
        return head + squeeze(values.tobytes(), self.level)

    def decode(self, body: bytes) -> np.ndarray:
        block, scale, rest = parted(body, self.size)
        values = np.frombuffer(unsqueeze(rest, self.size), np.int8)
        if values.size != self.size:
            raise CodecError(f"{values.size} values, expected {self.size}")
        return scaled(values, scale, block)
