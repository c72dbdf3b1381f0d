"""Whatever comes, the way in ends in a message, an outcome or one of our errors. `benchmarks/fuzz_wire.py`
does the same a million times.
"""

import contextlib
import math

import msgspec
import numpy as np
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.cli.inspection import described, lines
from fleetfl.codecs import decoder
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.plugins import available
from fleetfl.protocol import chunks, messages, wire
from fleetfl.protocol.messages import Ban, Receipt, Release, Rollback, Snapshot, Status, Update
from fleetfl.protocol.signing import Keyring, Signer
from fleetfl.server_optimizers.sgd import Config as Optimizer
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("a", (12, 40)), ("b", (7,))))
CODECS = available("fleetfl.codecs")
SIGNER = Signer("f", Ed25519PrivateKey.from_private_bytes(bytes(32)))
VECTOR = np.random.default_rng(0).normal(size=LAYOUT.size).astype(np.float32)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
often = settings(max_examples=300, deadline=None)


def update(codec, body, **fields):
    defaults = {
        "vehicle": "v1",
        "boot": "b",
        "sequence": 0,
        "base_version": 0,
        "layout": LAYOUT.fingerprint,
        "num_examples": 8,
        "local_steps": 1,
        "captured_from": 1,
        "captured_to": 2,
        "loss": 0.5,
    }
    return Update(**{**defaults, **fields}, codec=codec, body=body)


BODIES = {kind: decoder(kind, LAYOUT).encode(VECTOR) for kind in CODECS}
MESSAGES = [
    *(update(kind, body) for kind, body in BODIES.items()),
    Release("4f2a", 3, 2, LAYOUT.fingerprint, bytes(32), "int8", BODIES["int8"]),
    Snapshot("4f2a", 3, LAYOUT.fingerprint, bytes(32), "float32", BODIES["float32"]),
    Ban("x", "drone-01", True, "fog"),
    Rollback("x", "4f2a", 2, LAYOUT.fingerprint, bytes(32), "float32", BODIES["float32"], "fog"),
    Receipt("v1", "b", 7, "refused", "stale", 9, 12),
    Status("v1", "b", "online", 3, 10, 20, 1, "cold", SIGNER.public),
]

edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "cut"]),
        st.integers(0, 2**16),
        st.binary(min_size=1, max_size=6)
        | st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xc6\xff\xff\xff\xff", b"\xdd\x7f"]),
    ),
    min_size=1,
    max_size=5,
)


def edited(data, changes):
    data = bytearray(data)
    for how, where, new in changes:
        at = where % (len(data) + 1)
        if how == "set":
            data[at : at + len(new)] = new
        elif how == "insert":
            data[at:at] = new
        elif how == "delete":
            del data[at : at + len(new)]
        else:
            del data[at:]
    return bytes(data)


def taken(frame, keys=None):
    """The message, if the frame has one."""
    with contextlib.suppress(wire.WireError):
        message = wire.decode(frame, keys)
        assert isinstance(message, messages.Message)
        lines(described(frame))
        return message
    return None


@often
@given(st.binary(max_size=300))
def test_noise_is_never_a_message(noise):
    for frame in (noise, wire.MAGIC + noise, b"FFL\x02" + noise, b"FFL\x82" + noise):
        taken(frame)
    assert taken(noise) is None


@often
@given(message=st.sampled_from(MESSAGES), changes=edits, signed=st.booleans())
def test_edited_frames_are_messages_or_wire_errors(message, changes, signed):
    frame = edited(wire.encode(message, SIGNER if signed else None), changes)
    again = taken(frame)
    if again is not None and not math.isnan(getattr(again, "loss", 0.0)):
        assert wire.decode(wire.encode(again)) == again


@settings(max_examples=100, deadline=None)
@given(message=st.sampled_from(MESSAGES), changes=edits)
def test_edited_frames_are_not_their_senders(tmp_path_factory, message, changes):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("v1", "server"):
        (folder / f"{name}.pub").write_text(SIGNER.public_line(name))
    keys, frame = Keyring("f", folder), wire.encode(message, SIGNER)
    assert taken(frame, keys) == message
    changed = edited(frame, changes)
    assert changed == frame or taken(changed, keys) is None


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
anything = st.recursive(
    plain | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@often
@given(tag=st.sampled_from([type(m).__struct_config__.tag for m in MESSAGES]), rest=anything)
def test_any_msgpack_is_a_message_or_a_wire_error(tag, rest):
    values = rest if isinstance(rest, list) else [rest]
    taken(b"FFL\x02" + msgspec.msgpack.encode([tag, *values]))
    taken(b"FFL\x02" + msgspec.msgpack.encode(rest))


@often
@given(message=st.sampled_from(MESSAGES), at=st.integers(0, 20), value=anything)
def test_any_value_in_any_field_is_a_message_or_a_wire_error(message, at, value):
    values = msgspec.msgpack.decode(wire.encode(message)[4:])
    values[at % len(values)] = value
    taken(b"FFL\x02" + msgspec.msgpack.encode(values))


def new_coordinator():
    return Coordinator(
        np.zeros(LAYOUT.size, np.float32),
        LAYOUT,
        FedBuff(goal=2).build(LAYOUT.size),
        Optimizer().build(LAYOUT.size),
        release_codec=Int8(),
    )


@pytest.mark.parametrize("kind", CODECS)
@settings(max_examples=60, deadline=None)
@given(changes=st.lists(edits, min_size=2, max_size=4), within=st.booleans())
def test_edited_bodies_are_judged_and_the_model_stays_finite(kind, changes, within):
    """`within`: what zstd packed is edited and packed again, so that more than zstd sees the edit."""
    coordinator = new_coordinator()
    for sequence, change in enumerate(changes):
        body = BODIES[kind]
        at = body.find(ZSTD_MAGIC)
        if within and at >= 0:
            raw = zstandard.decompress(body[at:])
            body = body[:at] + zstandard.compress(edited(raw, change))
        else:
            body = edited(body, change)
        message = wire.decode(wire.encode(update(kind, body, sequence=sequence)))
        assert isinstance(message, Update)
        assert coordinator.submit(message).verdict in ("accepted", "refused")
        assert np.isfinite(coordinator.params).all()


@often
@given(
    feed=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 7), st.none() | edits), max_size=30
    )
)
def test_edited_chunks_give_whole_frames_or_wire_errors_in_bounded_memory(feed):
    assembler, pieces = chunks.Assembler(max_bytes=9_000), chunks.split(bytes(1000), 274)
    pieces += chunks.split(b"b" * 900, 274)
    for now_s, (sender, which, changes) in enumerate(feed):
        piece = pieces[which] if changes is None else edited(pieces[which], changes)
        with contextlib.suppress(wire.WireError):
            frame = assembler.add(sender, piece, float(now_s))
            assert frame in (None, bytes(1000), b"b" * 900) or frame == piece
        assert assembler.held_bytes <= 9_000
        assert assembler.held_bytes == sum(t.cost for t in assembler.open.values())
