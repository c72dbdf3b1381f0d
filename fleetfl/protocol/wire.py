"""Encodes messages into frames and back. Knows no file, no socket and no kind of key; nothing in a frame is
unpickled.

    offset 0   b"FFL"
           3   format, 2; the top bit says that the frame is signed
           4   the message, msgpack: [tag, field, field, ...]
         -64   signature of the fleet's name and all that stands before it, if signed

Codecs have packed the bodies, so frames are not compressed again. Fields at the end that have their default
are left out. Where the sender is known from the topic, the signature is verified before the content is
parsed.
"""

from ctypes import c_float
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from fleetfl import FleetflError
from fleetfl.protocol import _msgpack
from fleetfl.protocol.messages import SERVER, AnyMessage, Status, Update

MAGIC = b"FFL"
FORMAT = 2
SIGNED = 0x80
HEADER_BYTES = 4
SIGNATURE_BYTES = 64
MAX_FRAME_BYTES = 64 * 2**20

_encoder = msgspec.msgpack.Encoder()
_decoder: Any = msgspec.msgpack.Decoder(AnyMessage)
_TAGS = {kind.__struct_config__.tag: kind for kind in AnyMessage.__args__}
_KEY_AT = 1 + Status.__struct_fields__.index("key")


class WireError(FleetflError, ValueError):
    """Bytes that are not a message of this format."""


class UnsendableError(FleetflError, ValueError):
    """A message that its receiver would refuse; names the field, its value and what was expected."""


@dataclass(frozen=True)
class Named:
    """Names at the beginning of a frame, read without parsing the rest; they are not verified."""

    tag: int
    vehicle: str
    boot: str
    sequence: int


class SignatureError(WireError):
    """A message without proof that it is from the sender that it names."""

    def __init__(self, why: str, message: AnyMessage | None, named: Named | None = None) -> None:
        super().__init__(why)
        self.message = message
        """The message as it came, unverified; None where the content was not parsed."""
        self.named = named
        """Names at the beginning of a frame whose content was not parsed; unverified, None without any."""


class UnreadableError(WireError):
    """A frame whose header, and signature if it was checked, are sound, but whose content is not."""

    def __init__(self, why: str, named: Named | None) -> None:
        super().__init__(why)
        self.named = named
        """Names at the beginning of the frame; None if they cannot be read."""


class Signer(Protocol):
    """Signs frames for one sender."""

    def sign(self, frame: bytes) -> bytes:
        """Signature, 64 bytes, that proves fleet, sender and bytes."""
        ...


class Verifier(Protocol):
    """Checks who signed a frame."""

    def objection(self, name: str, frame: bytes, signature: bytes, *, offered: bytes) -> str:
        """Why this is not a frame of `name`, in words; empty if it is.

        `offered` is the public key that the frame itself carries, or empty.
        """
        ...


@dataclass(frozen=True)
class Opened:
    """A frame taken apart, its content decoded and its signature not checked."""

    message: AnyMessage
    signed: bytes
    """Bytes that the signature covers: all before it."""
    signature: bytes
    """Signature, 64 bytes; empty if the frame has none."""

    @property
    def sender(self) -> str:
        """Name of the vehicle, or SERVER, that should have signed the frame."""
        return _sender(self.message)


@dataclass(frozen=True)
class _Envelope:
    """A frame taken apart whose content is not parsed yet."""

    format: int
    content: memoryview
    signed: bytes
    signature: bytes

    @property
    def named(self) -> Named | None:
        match _msgpack.fields(self.content, 4):
            case [int(tag), str(vehicle), str(boot), int(sequence)] if sequence <= 2**53:
                return Named(tag, vehicle, boot, sequence)
        return None

    def offered(self, sender: str) -> bytes:
        """The public key in a status that names `sender`; empty in all else."""
        found = _msgpack.fields(self.content, _KEY_AT + 1)
        if found[:2] == [Status.__struct_config__.tag, sender] and len(found) > _KEY_AT:
            key = found[_KEY_AT]
            return key if isinstance(key, bytes) else b""
        return b""

    def message(self) -> AnyMessage:
        """The decoded content. Raises UnreadableError, whatever is wrong with it."""
        size = len(self.signed) + len(self.signature)
        if self.format != FORMAT:
            raise UnreadableError(
                f"frame of format {self.format}, expected {FORMAT}: update the older side",
                self.named,
            )
        try:
            _msgpack.require_flat(self.content)
            return _decoder.decode(self.content)
        except Exception as broken:  # whatever it is: this door has to hold
            raise UnreadableError(f"frame of {size} bytes: {broken}", self.named) from broken


def encode(message: AnyMessage, signer: Signer | None = None) -> bytes:
    """The frame of one message. Floats travel as float32.

    Raises UnsendableError for a message that `decode` would refuse.
    """
    signed = 0 if signer is None else SIGNED
    try:
        packed = _packed(message)
        _decoder.decode(packed)
    except Exception as refused:  # also numbers and characters that msgpack has not
        raise UnsendableError(_fault(message) or str(refused)) from refused
    frame = MAGIC + bytes([FORMAT | signed]) + packed
    if len(frame) + SIGNATURE_BYTES > MAX_FRAME_BYTES:
        raise UnsendableError(f"frame of {len(frame)} bytes, expected at most {MAX_FRAME_BYTES}")
    return frame if signer is None else frame + signer.sign(frame)


def decode(frame: bytes, keys: Verifier | None = None, *, sender: str | None = None) -> AnyMessage:
    """The message of a whole, well-typed frame; with `keys`, of one that its sender has signed.

    `sender` is the name that it has to be from: a vehicle's, or SERVER. Raises WireError: SignatureError
    where the proof of its sender is missing, UnreadableError where its content is at fault.
    """
    if sender is None:
        opened = open_frame(frame)
        objection = "" if keys is None else objection_to(opened, keys)
        if objection:
            raise SignatureError(objection, opened.message)
        return opened.message
    envelope = _envelope(frame)
    objection = "" if keys is None else _objection(envelope, keys, sender)
    if objection:
        raise SignatureError(objection, None, envelope.named)
    message = envelope.message()
    if (found := _sender(message)) != sender:
        raise WireError(
            f"a {type(message).__name__} that names {found!r} on the topic of {sender!r}"
        )
    return message


def named(message: AnyMessage) -> Named | None:
    """Names of the update that a message is; None for any other message."""
    if not isinstance(message, Update):
        return None
    tag = message.__struct_config__.tag
    assert isinstance(tag, int)
    return Named(tag, message.vehicle, message.boot, message.sequence)


def open_frame(frame: bytes) -> Opened:
    """Take a frame apart without checking its signature. Raises WireError."""
    envelope = _envelope(frame)
    return Opened(envelope.message(), envelope.signed, envelope.signature)


def objection_to(opened: Opened, keys: Verifier) -> str:
    """Why the signature does not prove the frame's sender, in words; empty if it does."""
    if not opened.signature:
        return f"frame of {opened.sender!r} is not signed"
    offered = opened.message.key if isinstance(opened.message, Status) else b""
    return keys.objection(opened.sender, opened.signed, opened.signature, offered=offered)


def _objection(envelope: _Envelope, keys: Verifier, sender: str) -> str:
    if not envelope.signature:
        return f"frame of {sender!r} is not signed"
    of = envelope.signed, envelope.signature
    objection = keys.objection(sender, *of, offered=b"")
    # Only for a key that is not known yet is the content looked at, and of that nothing but the key.
    if objection and (offered := envelope.offered(sender)):
        return keys.objection(sender, *of, offered=offered)
    return objection


def _envelope(frame: bytes) -> _Envelope:
    if len(frame) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(frame)} bytes, expected at most {MAX_FRAME_BYTES}")
    if len(frame) < HEADER_BYTES or frame[:3] != MAGIC:
        expected = MAGIC + bytes([FORMAT])
        raise WireError(f"frame starts with {frame[:HEADER_BYTES]!r}, expected {expected!r}")
    end = len(frame) - SIGNATURE_BYTES if frame[3] & SIGNED else len(frame)
    if end <= HEADER_BYTES:
        raise WireError(f"frame of {len(frame)} bytes is cut off")
    content = memoryview(frame)[HEADER_BYTES:end]
    return _Envelope(frame[3] & ~SIGNED, content, frame[:end], frame[end:])


def _sender(message: AnyMessage) -> str:
    return message.vehicle if isinstance(message, Update | Status) else SERVER


def _packed(message: AnyMessage) -> bytes:
    values = list(msgspec.structs.astuple(message))
    # Readers fill in defaults, so a field that came later costs nothing where it says nothing.
    for default in reversed(type(message).__struct_defaults__):
        if values[-1] != _plain_default(default):
            break
        values.pop()
    # msgspec reads floats of 4 bytes and of 8, and writes 8.
    narrow = (_float32(value) if isinstance(value, float) else value for value in values)
    return _encoder.encode([message.__struct_config__.tag, *narrow])


def _plain_default(default: Any) -> Any:
    factory = getattr(default, "factory", None)
    return default if factory is None else factory()


def _float32(value: float) -> msgspec.Raw:
    return msgspec.Raw(b"\xca" + bytes(c_float.__ctype_be__(value)))


def _fault(message: AnyMessage) -> str:
    """Description of the first field whose value its type does not allow; empty if there is none."""
    for field in msgspec.structs.fields(type(message)):
        value = getattr(message, field.name)
        try:
            msgspec.msgpack.decode(_encoder.encode(value), type=field.type)
        except Exception as unfit:  # as above
            kind = type(message).__name__
            return f"{kind}.{field.name} is {repr(value)[:100]}: {unfit}"
    return ""
