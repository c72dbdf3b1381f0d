"""What `fleetfl codec inspect` says of a frame."""

import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetfl.cli.inspection import described, lines
from fleetfl.codecs import CodecError
from fleetfl.protocol import chunks, wire
from fleetfl.protocol.messages import Receipt
from fleetfl.protocol.signing import Keyring, Signer
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (4,)),))
SIGNER = Signer("f", Ed25519PrivateKey.from_private_bytes(bytes(32)))
DELTA = np.float32([3, 0, -4, 0])


@pytest.fixture
def update(make_update):
    return make_update(DELTA, layout=LAYOUT.fingerprint)


def test_an_update_is_said_without_its_body(update):
    frame = wire.encode(update)
    about = described(frame)
    assert (about["kind"], about["format"], about["sender"]) == ("Update", 2, "v1")
    assert about["signature"] == "none"
    assert "body" not in about["fields"]
    assert about["fields"]["num_examples"] == 8
    assert about["body_bytes"] + about["other_bytes"] == about["bytes"] == len(frame)
    json.dumps(about)


def test_values_of_the_body_with_a_layout(update):
    """Of 3, 0, -4, 0: half are zero, mean -0.25, norm 5, a variance of 25/4 - 1/16."""
    values = described(wire.encode(update), layout=LAYOUT)["values"]
    bits = values.pop("bits_per_value")
    assert bits == 8 * len(update.body) / 4
    assert values == pytest.approx(
        {
            "count": 4,
            "zeros": 0.5,
            "mean": -0.25,
            "std": (25 / 4 - 1 / 16) ** 0.5,
            "min": -4,
            "max": 3,
            "norm": 5,
        }
    )


def test_signatures_are_checked_with_keys(update, tmp_path):
    frame, keys = wire.encode(update, SIGNER), Keyring("f", tmp_path)
    assert described(frame)["signature"] == "not checked"
    assert described(frame, keys=keys)["signature"].startswith("v1 is not listed")
    (tmp_path / "v1.pub").write_text(SIGNER.public_line("v1"))
    assert described(frame, keys=keys)["signature"] == "valid"
    assert described(wire.encode(update), keys=keys)["signature"] == "none"


def test_another_layout_or_a_broken_body_is_an_error(update, make_update):
    with pytest.raises(wire.WireError, match="the adapter file's"):
        described(wire.encode(update), layout=Layout.flat(4))
    broken = make_update(layout=LAYOUT.fingerprint, body=b"junk")
    with pytest.raises(CodecError, match=r"body starts with b.j"):
        described(wire.encode(broken), layout=LAYOUT)
    assert described(wire.encode(broken))["body_bytes"] == 4


def test_a_chunk_says_its_place():
    chunk = chunks.split(bytes(1000), 324)[2]
    about = described(chunk)
    assert (about["kind"], about["bytes"]) == ("Chunk", 274)
    assert (about["fields"]["index"], about["fields"]["count"]) == (2, 4)
    assert about["fields"]["total"] == 1000


def test_garbage_is_a_wire_error():
    for junk in (b"", b"junk", chunks.MAGIC):
        with pytest.raises(wire.WireError):
            described(junk)


def test_what_came_from_anywhere_does_not_reach_the_terminal_raw():
    receipt = Receipt("v1", "b", 0, "refused", "\x1b[2J\n", 0, 0)
    text = "\n".join(lines(described(wire.encode(receipt))))
    assert "\x1b" not in text
    assert r'"\u001b[2J\n"' in text
