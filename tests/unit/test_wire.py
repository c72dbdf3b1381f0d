"""Frames: whole and well typed, or a WireError."""

import contextlib

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fleetfl import wire
from fleetfl.messages import Receipt, Release, Status

pytestmark = pytest.mark.unit
MESSAGES = [
    Release(3, "ab", "float32", "cd", b"\0\1"),
    Receipt("v1", "b", 7, "refused", "stale", 9, 12),
    Status("v1", "b", "offline", -1, 0, 0, 0, ""),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_round_trip(message):
    assert wire.decode(wire.encode(message)) == message


def test_update_round_trip(make_update):
    update = make_update(codec="int8")
    assert wire.decode(wire.encode(update)) == update


def test_head_is_frozen(make_update):
    """A change here needs a new format number."""
    assert wire.encode(make_update())[:8] == b"FFL\x01\x28\xb5\x2f\xfd"


@given(st.binary(max_size=200))
def test_noise_is_a_wire_error(noise):
    for frame in (noise, wire.MAGIC + noise, wire.MAGIC + zstandard.compress(noise)):
        with pytest.raises(wire.WireError):
            wire.decode(frame)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_or_missing_byte_never_raises_anything_else(at, value):
    frame = bytearray(wire.encode(MESSAGES[1]))
    frame[at % len(frame)] = value
    for mutated in (bytes(frame), bytes(frame[: at % len(frame)])):
        with contextlib.suppress(wire.WireError):
            wire.decode(mutated)


def test_bomb_is_refused_before_it_unpacks():
    bomb = wire.MAGIC + zstandard.compress(bytes(wire.MAX_MESSAGE_BYTES + 1))
    assert len(bomb) < 10_000
    with pytest.raises(wire.WireError, match="declares"):
        wire.decode(bomb)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", -1),
        ("vehicle", "a/b"),
        ("vehicle", "+"),
        ("num_examples", 0),
        ("base_version", "1"),
        ("body", "text"),
    ],
)
def test_wrong_types_and_ranges_are_refused(make_update, field, value):
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(make_update()))
    raw[field] = value
    with pytest.raises(wire.WireError, match=field):
        wire.decode(wire.MAGIC + zstandard.compress(msgspec.msgpack.encode(raw)))
