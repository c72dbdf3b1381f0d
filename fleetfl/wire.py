"""Message <-> bytes: magic with the format number, then zstd(msgpack(message)). No I/O, no pickle."""

from typing import Any

import msgspec
import zstandard

from fleetfl import FleetflError
from fleetfl.messages import AnyMessage

MAGIC = b"FFL\x01"
MAX_MESSAGE_BYTES = 64 * 2**20
"""Bound on the unpacked size, so that a small hostile frame cannot fill memory."""

_encoder = msgspec.msgpack.Encoder()
_decoder: Any = msgspec.msgpack.Decoder(AnyMessage)


class WireError(FleetflError, ValueError):
    """The bytes are not a message of this format."""


def encode(message: AnyMessage) -> bytes:
    """The frame of one message."""
    return MAGIC + zstandard.ZstdCompressor(level=1).compress(_encoder.encode(message))


def decode(frame: bytes) -> AnyMessage:
    """Raises WireError for anything but a whole, well-typed message of this format."""
    if frame[:4] != MAGIC:
        raise WireError(f"frame starts with {frame[:4]!r}, expected {MAGIC!r}")
    try:
        declared = zstandard.frame_content_size(frame[4:])
        if not 0 <= declared <= MAX_MESSAGE_BYTES:
            raise WireError(
                f"frame declares {declared} bytes, expected at most {MAX_MESSAGE_BYTES}"
            )
        raw = zstandard.ZstdDecompressor().decompress(frame[4:], max_output_size=declared or 1)
        return _decoder.decode(raw)
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as broken:
        raise WireError(f"frame of {len(frame)} bytes: {broken}") from broken
