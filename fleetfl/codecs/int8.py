"""int8 with one scale a block: a quarter of float32, error at most half a step of the block's scale.

The block size stands in front of the body, so that a server decodes what any vehicle chose.
"""

import struct
from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, require_finite, squeeze, unsqueeze
from fleetfl.vectors import Layout

MAX_BLOCK = 65_536
MAX_SCALE = np.finfo(np.float32).max / 128


class Config(CodecConfig):
    kind: Literal["int8"] = "int8"
    block: int = Field(default=256, ge=8, le=MAX_BLOCK)
    """Values that share a scale (the block's largest magnitude / 127, float32)."""
    level: int = Field(default=3, ge=1, le=19)
    """zstd level."""

    def build(self, layout: Layout) -> "Int8":
        return Int8(self, layout)


class Int8:
    def __init__(self, config: Config, layout: Layout) -> None:
        self.block, self.level, self.size = config.block, config.level, layout.size

    def encode(self, vector: np.ndarray) -> bytes:
        vector = require_finite(vector)
        padded = np.pad(vector, (0, -vector.size % self.block)).reshape(-1, self.block)
        scale = np.abs(padded).max(axis=1) / np.float32(127)
        # A scale that rounds to zero (all values zero, or subnormal) stands for zeros.
        steps = padded / np.where(scale > 0, scale, np.float32(1))[:, None]
        values = np.rint(steps).clip(-127, 127).astype(np.int8).ravel()[: vector.size]
        head = struct.pack("<I", self.block)
        return squeeze(head + scale.astype("<f4").tobytes() + values.tobytes(), self.level)

    def decode(self, body: bytes) -> np.ndarray:
        size = self.size
        # Blocks hold at least 8 values: the largest honest body for `size` values.
        raw = unsqueeze(body, 4 + 4 * -(-size // 8) + size)
        if len(raw) < 4:
            raise CodecError(f"{len(raw)} bytes, expected a block size first")
        (block,) = struct.unpack_from("<I", raw)
        if not 8 <= block <= MAX_BLOCK:
            raise CodecError(f"block of {block} values, expected 8 to {MAX_BLOCK}")
        blocks = -(-size // block)
        expected = 4 + 4 * blocks + size
        if len(raw) != expected:
            raise CodecError(f"{len(raw)} bytes for {size} values, expected {expected}")
        scale = np.frombuffer(raw, "<f4", blocks, offset=4)
        if not (np.abs(scale) <= MAX_SCALE).all():
            raise CodecError(
                f"a block's scale is {scale[np.argmax(~(np.abs(scale) <= MAX_SCALE))]}"
            )
        padded = np.zeros(blocks * block, np.float32)
        padded[:size] = np.frombuffer(raw, np.int8, offset=4 + 4 * blocks)
        return (padded.reshape(blocks, block) * scale[:, None]).ravel()[:size]
