"""Message <-> frame. Knows no file, no socket and no kind of key; nothing in a frame is unpickled.

    offset 0   b"FFL"
           3   format, 2; the top bit says that the frame is signed
           4   the message, msgpack: [tag, field, field, ...]
         -64   signature of the fleet's name and all that stands before it, if signed

Codecs have packed the bodies, so frames are not compressed again.
"""

from ctypes import c_float
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from fleetfl import FleetflError
from fleetfl.messages import SERVER, AnyMessage, Status, Update

MAGIC = b"FFL"
FORMAT = 2
SIGNED = 0x80
HEADER_BYTES = 4
SIGNATURE_BYTES = 64
MAX_FRAME_BYTES = 64 * 2**20

_encoder = msgspec.msgpack.Encoder()
_decoder: Any = msgspec.msgpack.Decoder(AnyMessage)


class WireError(FleetflError, ValueError):
    """The bytes are not a message of this format."""


class SignatureError(WireError):
    """A whole message of somebody who may not be who it names."""

    def __init__(self, why: str, message: AnyMessage) -> None:
        super().__init__(why)
        self.message = message
        """As it came: to tell the named one, not to believe."""


class Signer(Protocol):
    def sign(self, frame: bytes) -> bytes:
        """64 bytes that prove: this fleet, this sender, these bytes."""
        ...


class Verifier(Protocol):
    def objection(self, name: str, frame: bytes, signature: bytes, *, offered: bytes) -> str:
        """Why this is not a frame of `name`, in words; empty if it is.

        `offered` is the public key that the frame itself carries, or empty.
        """
        ...


@dataclass(frozen=True)
class Opened:
    """A frame taken apart."""

    message: AnyMessage
    signed: bytes
    """What the signature covers: all before it."""
    signature: bytes
    """Empty if the frame has none."""

    @property
    def sender(self) -> str:
        """Who should have signed it."""
        return self.message.vehicle if isinstance(self.message, Update | Status) else SERVER


def encode(message: AnyMessage, signer: Signer | None = None) -> bytes:
    """The frame of one message. Floats travel as float32."""
    signed = 0 if signer is None else SIGNED
    frame = MAGIC + bytes([FORMAT | signed]) + _packed(message)
    return frame if signer is None else frame + signer.sign(frame)


def decode(frame: bytes, keys: Verifier | None = None) -> AnyMessage:
    """The message of a whole, well-typed frame; with `keys`, of one that its sender has signed.

    Raises WireError, or SignatureError where only the proof of its sender is missing.
    """
    opened = open_frame(frame)
    objection = "" if keys is None else objection_to(opened, keys)
    if objection:
        raise SignatureError(objection, opened.message)
    return opened.message


def open_frame(frame: bytes) -> Opened:
    """Take a frame apart without a look at who signed it. Raises WireError."""
    if len(frame) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(frame)} bytes, expected at most {MAX_FRAME_BYTES}")
    if len(frame) < HEADER_BYTES or frame[:3] != MAGIC or frame[3] & ~SIGNED != FORMAT:
        expected = MAGIC + bytes([FORMAT])
        raise WireError(f"frame starts with {frame[:HEADER_BYTES]!r}, expected {expected!r}")
    end = len(frame) - SIGNATURE_BYTES if frame[3] & SIGNED else len(frame)
    if end <= HEADER_BYTES:
        raise WireError(f"frame of {len(frame)} bytes is cut off")
    try:
        message = _decoder.decode(memoryview(frame)[HEADER_BYTES:end])
    except (msgspec.MsgspecError, UnicodeDecodeError) as broken:
        raise WireError(f"frame of {len(frame)} bytes: {broken}") from broken
    return Opened(message, frame[:end], frame[end:])


def objection_to(opened: Opened, keys: Verifier) -> str:
    """Why the frame is not shown to be its sender's, in words; empty if it is."""
    if not opened.signature:
        return f"frame of {opened.sender!r} is not signed"
    offered = opened.message.key if isinstance(opened.message, Status) else b""
    return keys.objection(opened.sender, opened.signed, opened.signature, offered=offered)


def _packed(message: AnyMessage) -> bytes:
    values = msgspec.structs.astuple(message)
    if float not in map(type, values):
        return _encoder.encode(message)
    # msgspec reads floats of 4 bytes and of 8, and writes 8.
    narrow = (_float32(value) if isinstance(value, float) else value for value in values)
    return _encoder.encode([message.__struct_config__.tag, *narrow])


def _float32(value: float) -> msgspec.Raw:
    return msgspec.Raw(b"\xca" + bytes(c_float.__ctype_be__(value)))
