"""Frames kept in tests/golden/frames: what this version reads of them, every later one has to read too.

A new codec or type of message needs one; this writes those that are missing, and leaves the others alone:

    python tests/unit/test_golden_frames.py

A frame that is there is replaced (delete it first) only together with its format number, or with the
first byte of the body by which its codec knows old bodies: fleets in the field have such frames under way.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from fleetfl import closed_form
from fleetfl.cli.inspection import described
from fleetfl.codecs import decoder
from fleetfl.plugins import available
from fleetfl.protocol import chunks, wire
from fleetfl.protocol.messages import Ban, Receipt, Release, Rollback, Snapshot, Status, Update
from fleetfl.protocol.signing import Keyring, Signer
from fleetfl.vectors import Layout, digest

pytestmark = pytest.mark.unit
FOLDER = Path(__file__).parents[1] / "golden" / "frames"
EXPECTED = FOLDER / "expected.json"
SIGNER = Signer("golden", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
"""Of these frames alone: a private key that everybody knows."""
LAYOUT = Layout((("head.bias", (10,)), ("head.weight", (10, 24)), ("lora_a", (8, 33))))
CODECS = available("fleetfl.codecs")


def vector() -> np.ndarray:
    """514 values from -0.01 to 0.01 in no order, and a zero."""
    numbers = np.arange(LAYOUT.size) * 7919 % 1009 - 504
    return (numbers / 50_400).astype(np.float32)


def packed(kind: str) -> bytes:
    return decoder(kind, LAYOUT).encode(vector())


def update(kind: str) -> bytes:
    fields = (
        "drone-01",
        "x3F-a0",
        200,
        41,
        LAYOUT.fingerprint,
        320,
        10,
        1_700_000_000,
        1_700_000_060,
    )
    return wire.encode(Update(*fields, 0.693, kind, packed(kind)), SIGNER)


def release() -> bytes:
    fields = ("4f2ac01d", 42, 41, LAYOUT.fingerprint, digest(vector()))
    return wire.encode(Release(*fields, "int8", packed("int8")), SIGNER)


def snapshot() -> bytes:
    fields = ("4f2ac01d", 42, LAYOUT.fingerprint, digest(vector()))
    return wire.encode(Snapshot(*fields, "float32", packed("float32")), SIGNER)


def rollback() -> bytes:
    fields = ("Zk3_x0Aa9Qw", "4f2ac01d", 40, LAYOUT.fingerprint, digest(vector()))
    return wire.encode(Rollback(*fields, "float32", packed("float32"), "worse in fog"), SIGNER)


def ban() -> bytes:
    return wire.encode(Ban("Zk3_x0Aa9Qw", "drone-01", True, "sends noise"), SIGNER)


def feature_sums() -> bytes:
    """Of 320 frames' features, all whole multiples of 1/16: no processor rounds them otherwise."""
    numbers = np.arange(320 * 24) * 7919 % 61 - 30
    features, labels = numbers.reshape(320, 24) / 16, np.arange(320) * 7 % 10
    body = closed_form.SufficientStatistics.of(features, labels, 10).packed(b"golden-0")
    message = wire.decode(update("int8"))
    return wire.encode(replace(message, codec=closed_form.KIND, body=body), SIGNER)


def generation() -> bytes:
    """Of an update, which older ones do not tell; an older release or status lacks its last field too."""
    message = wire.decode(update("int8"))
    return wire.encode(replace(message, generation="4f2ac01d"), SIGNER)


def parts() -> bytes:
    """Of an update that says what its values mean, and from which bits it was trained."""
    message = wire.decode(generation())
    named = {"parts": bytes(range(6)), "base_sha256": digest(vector())[:8]}
    return wire.encode(replace(message, **named), SIGNER)


def release_parts() -> bytes:
    return wire.encode(replace(wire.decode(limit()), parts=bytes(range(6))), SIGNER)


def snapshot_parts() -> bytes:
    return wire.encode(replace(wire.decode(snapshot()), parts=bytes(range(6))), SIGNER)


def limit() -> bytes:
    return wire.encode(replace(wire.decode(release()), max_staleness=50), SIGNER)


def outcomes() -> bytes:
    message = wire.decode(status())
    return wire.encode(replace(message, outcomes={"accepted": 12, "expired age": 1}), SIGNER)


def receipt() -> bytes:
    return wire.encode(Receipt("drone-01", "x3F-a0", 200, "refused", "stale", 51, 92), SIGNER)


def receipt_detail() -> bytes:
    return wire.encode(replace(wire.decode(receipt()), detail="51 versions late, limit 50"), SIGNER)


def status() -> bytes:
    fields = ("drone-01", "x3F-a0", "online", 41, 123_456, 654_321, 2, "camera unplugged")
    return wire.encode(Status(*fields, SIGNER.public), SIGNER)


MAKERS: dict[str, Callable[[], bytes]] = {
    **{f"update-{kind}": lambda kind=kind: update(kind) for kind in CODECS},
    "update-feature_sums": feature_sums,
    "release": release,
    "snapshot": snapshot,
    "rollback": rollback,
    "ban": ban,
    "receipt": receipt,
    "receipt-detail": receipt_detail,
    "status": status,
    "update-generation": generation,
    "update-parts": parts,
    "release-limit": limit,
    "release-parts": release_parts,
    "snapshot-parts": snapshot_parts,
    "status-ends": outcomes,
    "unsigned": lambda: wire.encode(wire.decode(receipt())),
    "chunk": lambda: chunks.split(update("float32"), 1000)[1],
}


def read(frame: bytes, keys: wire.Verifier) -> dict[str, Any]:
    """All that is in it; of the decoded body the SHA-256."""
    about = described(frame, keys=keys)
    if about["kind"] != "Chunk":
        message: Any = wire.decode(frame)
        body = getattr(message, "body", b"")
        if about["fields"].get("codec") == closed_form.KIND:
            about["values"] = described(frame, layout=LAYOUT)["values"]
        elif body:
            about["vector_sha256"] = digest(decoder(message.codec, LAYOUT).decode(body)).hex()
    return json.loads(json.dumps(about))


def keyring(folder: Path) -> Keyring:
    for name in ("drone-01", "server"):
        SIGNER.write_public(name, folder)
    return Keyring(SIGNER.fleet, folder)


@pytest.mark.parametrize("name", sorted({*MAKERS, *(p.stem for p in FOLDER.glob("*.bin"))}))
def test_golden_frame_reads_as_ever(name, tmp_path):
    path, expected = FOLDER / f"{name}.bin", json.loads(EXPECTED.read_text())
    assert path.exists(), f"no {path}: run python tests/unit/test_golden_frames.py"
    about = read(path.read_bytes(), keyring(tmp_path))
    assert about == expected[name]
    assert name in ("unsigned", "chunk") or about["signature"] == "valid"


def test_the_same_message_is_signed_to_the_same_frame():
    """Codecs may pack better one day; what is around them stays."""
    for name in ("receipt", "status-ends", "unsigned"):
        assert MAKERS[name]() == (FOLDER / f"{name}.bin").read_bytes()


def write_missing() -> list[str]:
    """Names of what was written."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    missing = [name for name in MAKERS if not (FOLDER / f"{name}.bin").exists()]
    with tempfile.TemporaryDirectory() as folder:
        for name in missing:
            frame = MAKERS[name]()
            (FOLDER / f"{name}.bin").write_bytes(frame)
            expected[name] = read(frame, keyring(Path(folder)))
    EXPECTED.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    return missing


if __name__ == "__main__":
    sys.stdout.write("".join(f"{FOLDER / name}.bin\n" for name in write_missing()))
