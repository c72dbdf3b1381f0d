"""Codecs: float32 [P] <-> bytes. They know the tensors' shapes, no layer names and no messages.

A body decodes to the same bits on every machine: decoders keep to integers and elementwise float32
arithmetic, whose order no library may choose.
"""

import importlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, Protocol

import numpy as np
import zstandard
from pydantic import SerializeAsAny

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig, available, chosen_from
from fleetfl.vectors import Layout

RAW, ZSTD = b"\0", b"\1"
UNSAID_BYTES = 4096
"""Bytes allowed, besides 8 for each value, to a codec that does not state its largest body."""


class CodecError(FleetflError, ValueError):
    """A vector that cannot be packed, or a body that is not what its codec packs."""


@dataclass(frozen=True)
class Fidelity:
    """Distance of decode(encode(x)) from x that a codec promises; its contract tests check it."""

    error: float
    """Largest |decoded - x| / |x| for independent normal values; 0 promises the same bits."""
    norm: Literal["max", "l2"]
    """Meaning of |.|: `max` is the largest magnitude, `l2` the root of the sum of squares."""
    unbiased: bool = False
    """Whether the mean of the decoded vectors over the setting `seed`, which such a codec has, is x."""


class Codec(Protocol):
    """Packs a vector, float32 [P], into bytes and back."""

    max_body_bytes: int
    """Largest size in bytes of a body of this kind for the layout, whatever the sender's settings are."""

    def encode(self, vector: np.ndarray) -> bytes:
        """Pack float32 [P]; the same settings and vector give the same bytes.

        Raises CodecError for values that are not finite or too large for the codec.
        """
        ...

    def decode(self, body: bytes) -> np.ndarray:
        """Back to float32 [P], an array of its own. Raises CodecError if `body` cannot be that.

        All values are finite, unless the codec is exact and was made to carry others.
        """
        ...


class CodecConfig(PluginConfig):
    """Settings of one codec."""

    @property
    def fidelity(self) -> Fidelity:
        """Distance from the original vector that these settings promise."""
        raise NotImplementedError

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
    built = importlib.import_module(f"fleetfl.codecs.{kind}").Config().build(layout)
    return Guarded(built, layout.size)


class Guarded:
    """Wraps a codec so that whatever goes wrong with a vector or a body is a CodecError."""

    def __init__(self, codec: Codec, size: int) -> None:
        self.codec, self.size = codec, size
        self.max_body_bytes = getattr(codec, "max_body_bytes", UNSAID_BYTES + 8 * size)

    def encode(self, vector: np.ndarray) -> bytes:
        try:
            return self.codec.encode(vector)
        except CodecError:
            raise
        except Exception as failed:
            raise CodecError(f"{vector.size} values: {_in_words(failed)}") from failed

    def decode(self, body: bytes) -> np.ndarray:
        if len(body) > self.max_body_bytes:
            raise CodecError(f"body of {len(body)} bytes, expected at most {self.max_body_bytes}")
        try:
            vector = self.codec.decode(body)
            if vector.dtype != np.float32 or vector.shape != (self.size,):
                raise CodecError(f"{vector.dtype} {vector.shape}, expected float32 [{self.size}]")
        except CodecError:
            raise
        except Exception as failed:  # such as memory that is not there
            raise CodecError(f"body of {len(body)} bytes: {_in_words(failed)}") from failed
        return vector


def max_body_bytes(layout: Layout) -> int:
    """Largest size in bytes of a delta of this layout, packed by any of the shipped codecs."""
    return max(decoder(kind, layout).max_body_bytes for kind in available("fleetfl.codecs"))


def _in_words(failed: Exception) -> str:
    return f"{type(failed).__name__}: {failed}"


def require_finite(vector: np.ndarray) -> np.ndarray:
    """The vector as contiguous float32. Raises CodecError naming the first value that is not finite."""
    vector = np.ascontiguousarray(vector, np.float32)
    finite = np.isfinite(vector)
    if not finite.all():
        at = int(np.argmin(finite))
        raise CodecError(f"value {at} of {vector.size} is {vector[at]}, expected finite float32")
    return vector


def squeeze(raw: bytes, level: int) -> bytes:
    """A flag byte, then `raw`: by zstd at that level where this saves 1/32 or more, else as it is.

    Level 0 leaves zstd out. The content size stands in zstd's header, so that `unsqueeze` can
    refuse before unpacking.
    """
    if level:
        packed = zstandard.ZstdCompressor(level=level).compress(raw)
        if len(packed) < len(raw) - len(raw) // 32:
            return ZSTD + packed
    return RAW + raw


def unsqueeze(body: bytes | memoryview, max_bytes: int) -> bytes | memoryview:
    """Bytes that `squeeze` packed; those that stand as they are, are not copied.

    Raises CodecError if the body is damaged, declares more than `max_bytes`, or is followed by anything.
    """
    view = memoryview(body)
    flag, content = bytes(view[:1]), view[1:]
    if flag == RAW:
        _require_at_most(max_bytes, len(content))
        return content
    if flag != ZSTD:
        raise CodecError(
            f"body starts with {flag!r}, expected {RAW!r} (as it is) or {ZSTD!r} (zstd)"
        )
    try:
        _require_at_most(max_bytes, zstandard.frame_content_size(content))
        return zstandard.ZstdDecompressor().decompress(
            content, max_output_size=max_bytes, allow_extra_data=False
        )
    except CodecError:
        raise
    except Exception as broken:
        raise CodecError(f"body of {len(content)} bytes is not zstd: {broken}") from broken


def _require_at_most(max_bytes: int, declared: int) -> None:
    if not 0 <= declared <= max_bytes:
        raise CodecError(f"body declares {declared} bytes, expected at most {max_bytes}")
