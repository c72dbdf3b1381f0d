"""Frames: whole, well typed and of whom they say they are, or a WireError."""

import contextlib
import dataclasses
import sys
import threading

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from fleetfl.protocol import wire
from fleetfl.protocol.messages import Ban, Receipt, Release, Rollback, Snapshot, Status
from fleetfl.protocol.signing import Signer

pytestmark = pytest.mark.unit
MESSAGES = [
    Release("4f2a", 3, 2, b"layout-8", bytes(32), "int8", b"\0\1"),
    Snapshot("4f2a", 3, b"layout-8", bytes(32), "float32", b"\0\1"),
    Ban("x", "drone-01", True, "fog"),
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
    update = make_update(generation="4f2ac0")
    assert wire.encode(update)[:8] == b"FFL\x02\x9e\x01\xa2v"
    assert wire.encode(update, SIGNER)[:8] == b"FFL\x82\x9e\x01\xa2v"


def test_what_stands_around_the_body_of_an_update_is_small(make_update):
    """4 header, 1 array, 1 tag, 9 + 7 vehicle and boot, 2 + 1 sequence and base, 10 layout, 3 + 1 examples
    and steps, 5 + 5 times, 5 loss, 5 codec, 3 length of the body, 7 generation, 64 signature: 133.
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
        generation="4f2ac0",
    )
    assert len(wire.encode(update, SIGNER)) - 37_000 == 133


def test_a_field_that_came_later_is_skipped_and_one_that_is_missing_has_its_default():
    status = MESSAGES[-1]
    short = msgspec.msgpack.decode(wire.encode(status)[4:])
    full = [*short, b"", {}]
    for values in ([*full, "a later field", 7], full, full[:-1], short):
        assert wire.decode(b"FFL\x02" + msgspec.msgpack.encode(values)) == status


def test_fields_at_the_end_that_say_nothing_take_no_bytes(make_update):
    bare = make_update(generation="4f2ac0")
    assert len(wire.encode(replace(bare, base_sha256=bytes(8)))) > len(wire.encode(bare))
    assert wire.decode(wire.encode(replace(bare, generation=""))) == replace(bare, generation="")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", r"starts with b'', expected b'FFL\\x02'"),
        (b"FFL", "starts with b'FFL'"),
        (b"FFL\x02", "4 bytes is cut off"),
        (b"FFL\x01\x28\xb5\x2f\xfd", "frame of format 1, expected 2"),
        (b"FFL\x82" + bytes(64), "68 bytes is cut off"),
        (b"FFL\x02\x91\x09", "frame of 6 bytes"),
        (wire.encode(MESSAGES[0]) + b"\0", "1 bytes follow the message"),
        (wire.encode(MESSAGES[0], SIGNER)[:-1], "is cut off"),
        (wire.encode(MESSAGES[0])[:-1], "is cut off"),
        (b"FFL\x02\x98\x04\xa1\xff", "is cut off"),
        (b"FFL\x02\x92\x04\xa1\xff", "frame of 8 bytes"),
        (b"FFL\x02\x92\x04\xc1", "begins no value"),
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


NESTING = {"lists": b"\x91", "maps": b"\x81\xa1a", "long lists": b"\xdc\0\1", "keys": b"\x81\x91"}


@pytest.mark.parametrize("nest", NESTING.values(), ids=NESTING)
@pytest.mark.parametrize("depth", [9, 200, 990, 1200, 100_000])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_values_nested_in_any_field_are_wire_errors(message, nest, depth):
    values = msgspec.msgpack.decode(wire.encode(message)[4:])
    for at in range(len(values) + 3):
        filled = [*values, "later", "later", "later"][: max(at + 1, len(values))]
        parts = [msgspec.msgpack.encode(value) for value in filled]
        parts[at] = nest * depth + b"\x01"
        frame = b"FFL\x02" + bytes([0x90 + len(parts)]) + b"".join(parts)
        with pytest.raises(wire.WireError, match=r"nested more than 8 levels deep|begins no value"):
            wire.decode(frame)


def test_nesting_is_refused_in_a_thread_with_a_small_stack():
    """A parser in C that went down with it would end the process, with no error to catch."""
    said = []

    def read():
        with pytest.raises(wire.WireError) as refused:
            wire.decode(b"FFL\x02" + b"\x91" * 5_000_000)
        said.append(str(refused.value))

    before = sys.getrecursionlimit(), threading.stack_size(64 * 1024)
    sys.setrecursionlimit(10_000_000)
    try:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(before[0])
        threading.stack_size(before[1])
    assert said == ["frame of 5000004 bytes: nested more than 8 levels deep"]


def test_a_message_of_many_small_values_is_refused_before_they_are_made():
    frame = b"FFL\x02\xdd" + (10_000_000).to_bytes(4, "big") + b"\x01" * 10_000_000
    with pytest.raises(wire.WireError, match="more than 1024 values"):
        wire.decode(frame)


class Watched:
    """Believes nobody, and says what it was asked."""

    def __init__(self):
        self.asked = []

    def objection(self, name, frame, signature, *, offered):
        self.asked.append((name, offered))
        return "not believed"


@pytest.mark.parametrize(
    "message",
    [*MESSAGES, "nested", "older"],
    ids=lambda m: m if isinstance(m, str) else type(m).__name__,
)
def test_where_the_sender_is_known_its_signature_comes_before_the_content(message):
    content = {"nested": b"FFL\x82" + b"\x91" * 1200, "older": b"FFL\x81\x28\xb5\x2f\xfd"}
    frame = (
        content[message] + bytes(64) if isinstance(message, str) else wire.encode(message, SIGNER)
    )
    keys = Watched()
    with pytest.raises(wire.SignatureError, match="not believed") as refused:
        wire.decode(frame, keys, sender="v7")
    assert refused.value.message is None
    assert keys.asked == [("v7", b"")]


def test_a_key_is_offered_only_by_a_status_that_names_its_sender():
    status = Status("v1", "b", "online", 0, 0, 0, 0, "", SIGNER.public)
    for sender, asked in (("v1", [b"", SIGNER.public]), ("v2", [b""])):
        keys = Watched()
        with pytest.raises(wire.SignatureError):
            wire.decode(wire.encode(status, SIGNER), keys, sender=sender)
        assert keys.asked == [(sender, offered) for offered in asked]


def test_a_message_of_somebody_else_than_its_sender_is_refused(make_update):
    with pytest.raises(wire.WireError, match="a Update that names 'v1' on the topic of 'v2'"):
        wire.decode(wire.encode(make_update()), sender="v2")
    with pytest.raises(wire.WireError, match="a Release that names 'server' on the topic of 'v1'"):
        wire.decode(wire.encode(MESSAGES[0]), sender="v1")


def test_an_update_that_cannot_be_read_still_says_which_it_is(make_update):
    update = make_update(vehicle="v1", boot="x3F", sequence=7)
    values = msgspec.msgpack.decode(wire.encode(update)[4:])
    values[8] = -3600  # taken before 1970
    tail = msgspec.msgpack.encode(values)
    for frame in (
        b"FFL\x02" + tail,
        b"FFL\x03" + tail,
        b"FFL\x02" + tail[:40],
        b"FFL\x02" + tail + b"\x91" * 9000,
    ):
        with pytest.raises(wire.UnreadableError) as refused:
            wire.decode(frame, sender="v1")
        assert refused.value.named == wire.Named(1, "v1", "x3F", 7)


@pytest.mark.parametrize(
    "start", [b"", b"\x91\x01", b"\x94\x01\xa2v1\xa1b\xcf" + b"\xff" * 8, b"\x94\x01\xc0"]
)
def test_what_names_no_update_has_no_name(start):
    with pytest.raises(wire.WireError) as refused:
        wire.decode(b"FFL\x02" + start + b"\xc1")
    assert getattr(refused.value, "named", None) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vehicle", "a/b"),
        ("boot", "x" * 65),
        ("sequence", -1),
        ("base_version", 2**60),
        ("layout", b"short"),
        ("num_examples", 0),
        ("local_steps", 2**70),
        ("captured_from", -3600),
        ("captured_to", 2**41),
        ("loss", "0.5"),
        ("codec", "\udc80"),
        ("body", "text"),
        ("generation", None),
        ("parts", bytes(17)),
        ("base_sha256", object()),
    ],
)
def test_what_would_be_refused_is_not_sent(make_update, field, value):
    with pytest.raises(wire.UnsendableError, match=f"Update.{field} is "):
        wire.encode(replace(make_update(), **{field: value}), SIGNER)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_no_field_of_any_message_takes_a_value_that_would_be_refused(message):
    for field in message.__struct_fields__:
        for value in (object(), 2**70, -(2**70), "x" * 10_000, {"a": "b"}, [[]], 1e400):
            changed = replace(message, **{field: value})
            with contextlib.suppress(wire.UnsendableError):
                wire.decode(wire.encode(changed))


def test_a_frame_above_the_bound_is_not_sent():
    with pytest.raises(wire.UnsendableError, match="bytes, expected at most 67108864"):
        wire.encode(replace(MESSAGES[1], body=bytes(wire.MAX_FRAME_BYTES)))
