"""Codecs: float32 [P] <-> bytes. They know the tensors' shapes, no layer names and no messages.

A body decodes to the same bits on every machine: decoders keep to integers and elementwise float32
arithmetic, whose order no library may choose.
"""

import importlib
from functools import lru_cache
from typing import Annotated, Protocol

import numpy as np
import zstandard
from pydantic import SerializeAsAny

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig, available, chosen_from
from fleetfl.vectors import Layout


class CodecError(FleetflError, ValueError):
    """A vector that cannot be packed, or a body that is not what its codec packs."""


class Codec(Protocol):
    def encode(self, vector: np.ndarray) -> bytes:
        """Pack float32 [P]. Raises CodecError for values that are not finite."""
        ...

    def decode(self, body: bytes) -> np.ndarray:
        """Back to float32 [P]. Raises CodecError if `body` cannot be that."""
        ...


class CodecConfig(PluginConfig):
    """Settings of one codec."""

    def build(self, layout: Layout) -> Codec:
        """The codec for vectors of this layout."""
        raise NotImplementedError


AnyCodec = Annotated[SerializeAsAny[CodecConfig], chosen_from("fleetfl.codecs")]


@lru_cache(maxsize=64)
def decoder(kind: str, layout: Layout) -> Codec:
    """The decoder for bodies of this kind, by default settings: what it needs stands in the body.

    Raises CodecError for a kind that this package does not ship: a name that came in a message
    is looked up, never imported.
    """
    if kind not in available("fleetfl.codecs"):
        raise CodecError(f"codec {kind[:40]!r}, known are {available('fleetfl.codecs')}")
    return importlib.import_module(f"fleetfl.codecs.{kind}").Config().build(layout)


def require_finite(vector: np.ndarray) -> np.ndarray:
    """The vector as contiguous float32. Raises CodecError naming the first value that is not finite."""
    vector = np.ascontiguousarray(vector, np.float32)
    finite = np.isfinite(vector)
    if not finite.all():
        at = int(np.argmin(finite))
        raise CodecError(f"value {at} of {vector.size} is {vector[at]}, expected finite float32")
    return vector


def squeeze(raw: bytes, level: int) -> bytes:
    """zstd with the content size in its header, so that `unsqueeze` can refuse before unpacking."""
    return zstandard.ZstdCompressor(level=level).compress(raw)


def unsqueeze(body: bytes, max_bytes: int) -> bytes:
    """Undo `squeeze`. Raises CodecError if the body is damaged or declares more than `max_bytes`."""
    try:
        declared = zstandard.frame_content_size(body)
        if not 0 <= declared <= max_bytes:
            raise CodecError(f"body declares {declared} bytes, expected at most {max_bytes}")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=max_bytes)
    except zstandard.ZstdError as broken:
        raise CodecError(f"body of {len(body)} bytes is not zstd: {broken}") from broken
