"""Frames: whole, well typed and of whom they say they are, or a WireError."""

import dataclasses

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetfl import wire
from fleetfl.identity import Signer
from fleetfl.messages import Receipt, Release, Rollback, Snapshot, Status

pytestmark = pytest.mark.unit
MESSAGES = [
    Release("4f2a", 3, 2, b"layout-8", bytes(32), "int8", b"\0\1"),
    Snapshot("4f2a", 3, b"layout-8", bytes(32), "float32", b"\0\1"),
    Rollback("x", "4f2a", 2, b"layout-8", bytes(32), "float32", b"\0\1", "fog"),
    Receipt("v1", "b", 7, "refused", "stale", 9, 12),
    Status("v1", "b", "offline", -1, 0, 0, 0, ""),
]
SIGNER = Signer("depot-7", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@dataclasses.dataclass
class Known:
    """A verifier that finds fault with all but one name's frames that end in `signature`."""

    name: str = "v1"

    def objection(self, name, frame, signature, *, offered):
        if name != self.name:
            return f"{name} is not {self.name}"
        return "" if signature == SIGNER.sign(frame) else "not its signature"


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("signer", [None, SIGNER], ids=["plain", "signed"])
def test_round_trip(message, signer):
    assert wire.decode(wire.encode(message, signer)) == message


def test_update_round_trip(make_update):
    update = make_update(codec="int8")
    assert wire.decode(wire.encode(update, SIGNER), Known()) == update


def test_floats_travel_as_float32(make_update):
    """0.1 is 0x3dcccccd there: five bytes with the type's."""
    frame = wire.encode(make_update(loss=0.1))
    assert b"\xca\x3d\xcc\xcc\xcd" in frame
    assert wire.decode(frame).loss == float(np.float32(0.1))  # pyright: ignore
    assert wire.decode(wire.encode(make_update(loss=1e300))).loss == float("inf")  # pyright: ignore


def test_heads_are_frozen(make_update):
    """A change here needs a new format number, but for a field at the end."""
    assert wire.encode(make_update())[:8] == b"FFL\x02\x9e\x01\xa2v"
    assert wire.encode(make_update(), SIGNER)[:8] == b"FFL\x82\x9e\x01\xa2v"


def test_what_stands_around_the_body_of_an_update_is_small(make_update):
    """4 header, 1 array, 1 tag, 9 + 7 vehicle and boot, 2 + 1 sequence and base, 10 layout, 3 + 1 examples
    and steps, 5 + 5 times, 5 loss, 5 codec, 3 length of the body, 7 lineage, 64 signature: 133.
    """
    update = make_update(
        vehicle="drone-07",
        boot="x3F-a0",
        sequence=200,
        base_version=100,
        num_examples=320,
        local_steps=10,
        loss=0.693,
        codec="int8",
        body=bytes(37_000),
        lineage="4f2ac0",
    )
    assert len(wire.encode(update, SIGNER)) - 37_000 == 133


def test_a_field_that_came_later_is_skipped_and_one_that_is_missing_has_its_default():
    status = MESSAGES[-1]
    values = msgspec.msgpack.decode(wire.encode(status)[4:])
    for other in ([*values, "a later field", 7], values[:-1]):
        assert wire.decode(b"FFL\x02" + msgspec.msgpack.encode(other)) == status


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", r"starts with b'', expected b'FFL\\x02'"),
        (b"FFL", "starts with b'FFL'"),
        (b"FFL\x02", "4 bytes is cut off"),
        (b"FFL\x01\x28\xb5\x2f\xfd", r"starts with b'FFL\\x01', expected"),
        (b"FFL\x82" + bytes(64), "68 bytes is cut off"),
        (b"FFL\x02\x91\x09", "frame of 6 bytes: ."),
        (wire.encode(MESSAGES[0]) + b"\0", r"frame of \d+ bytes: ."),
        (wire.encode(MESSAGES[0], SIGNER)[:-1], r"frame of \d+ bytes: ."),
        (wire.encode(MESSAGES[0])[:-1], r"frame of \d+ bytes: ."),
        (b"FFL\x02\x98\x04\xa1\xff", "frame of 8 bytes: ."),
    ],
)
def test_noise_is_a_wire_error_that_says_what_is_wrong(frame, says):
    with pytest.raises(wire.WireError, match=says):
        wire.decode(frame)


def test_a_frame_above_the_bound_is_refused_unread():
    with pytest.raises(wire.WireError, match=r"67108865 bytes, expected at most 67108864"):
        wire.decode(bytes(wire.MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", -1),
        ("sequence", 2**60),
        ("vehicle", "a/b"),
        ("vehicle", "+"),
        ("vehicle", "v" * 65),
        ("num_examples", 0),
        ("base_version", "1"),
        ("captured_from", 1.5),
        ("codec", "c" * 65),
        ("body", "text"),
    ],
)
def test_wrong_types_and_ranges_are_refused(make_update, field, value):
    update = make_update()
    at = 1 + update.__struct_fields__.index(field)
    values = msgspec.msgpack.decode(wire.encode(update)[4:])
    values[at] = value
    with pytest.raises(wire.WireError, match=r"frame of \d+ bytes: ."):
        wire.decode(wire.MAGIC + b"\x02" + msgspec.msgpack.encode(values))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_with_keys_an_unsigned_frame_is_refused_and_its_message_kept(message):
    with pytest.raises(wire.SignatureError, match="is not signed") as refused:
        wire.decode(wire.encode(message), Known())
    assert refused.value.message == message


def test_vehicles_sign_what_they_say_and_the_server_the_rest(make_update):
    wire.decode(wire.encode(make_update(), SIGNER), Known("v1"))
    wire.decode(wire.encode(MESSAGES[-1], SIGNER), Known("v1"))
    for of_server in MESSAGES[:-1]:
        wire.decode(wire.encode(of_server, SIGNER), Known("server"))
        with pytest.raises(wire.SignatureError, match="server is not v1"):
            wire.decode(wire.encode(of_server, SIGNER), Known("v1"))


def test_a_signature_covers_every_byte_before_it(make_update):
    frame = wire.encode(make_update(), SIGNER)
    for at in range(4, len(frame)):
        changed = bytearray(frame)
        changed[at] ^= 1
        with pytest.raises(wire.WireError):
            wire.decode(bytes(changed), Known())


def test_taking_the_signature_off_leaves_an_unsigned_frame(make_update):
    """The flag says that there is one, so 64 bytes of the message would have to be the signature."""
    frame = wire.encode(make_update(), SIGNER)
    with pytest.raises(wire.SignatureError, match="not signed"):
        wire.decode(b"FFL\x02" + frame[4:-64], Known())
    with pytest.raises(wire.WireError):
        wire.decode(frame[:-64], Known())
