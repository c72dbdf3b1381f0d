"""The vector as it is, to the bit. zstd finds little in it: the codec to compare others with."""

from typing import Literal

import numpy as np
from pydantic import Field

from fleetfl.codecs import CodecConfig, CodecError, Fidelity, require_finite, squeeze, unsqueeze
from fleetfl.vectors import Layout


class Config(CodecConfig):
    """Settings of the codec float32."""

    kind: Literal["float32"] = "float32"
    level: int = Field(default=3, ge=0, le=19)
    """zstd compression level, 0 to 19; higher levels are smaller and slower, and 0 leaves zstd out."""

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(0.0, "max")

    def build(self, layout: Layout) -> "Float32":
        return Float32(self, layout)


class Float32:
    """Body: the values as little-endian float32, squeezed."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.level, self.size = config.level, layout.size
        self.max_body_bytes = 1 + 4 * self.size

    def encode(self, vector: np.ndarray) -> bytes:
        return squeeze(require_finite(vector).astype("<f4", copy=False).tobytes(), self.level)

    def decode(self, body: bytes) -> np.ndarray:
        raw = unsqueeze(body, 4 * self.size)
        if len(raw) != 4 * self.size:
            raise CodecError(
                f"{len(raw)} bytes for {self.size} float32 values, expected {4 * self.size}"
            )
        return np.frombuffer(raw, "<f4").astype(np.float32)
