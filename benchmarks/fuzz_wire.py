"""A million hostile frames through the way in of a server, on one core.

Claim: nothing but WireError and CodecError comes out of wire.decode, Keyring, Assembler and every codec (the
latter through Coordinator.submit, which turns them into refusals); memory above the start stays below
BOUND_BYTES; no frame takes SLOWEST_MS of processor time.

Run: python benchmarks/fuzz_wire.py [--frames 1000000] [--seed 0] [--json FILE]
     python benchmarks/fuzz_wire.py --coverage 600        # guided by coverage, for so many seconds

Frames are sound ones of every codec and type, edited: bits, bytes, cuts, copies, splices, hostile numbers;
fields of other types; values nested in any field, to 100,000 levels; what zstd packed, edited and packed
again; bodies under another codec's name; bombs
(sizes declared and not there, zstd of zeros, nested arrays); chunks that lie. `--coverage` needs
`pip install atheris` and lets libFuzzer choose the bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FunctionType
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetfl import codecs
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.codecs import decoder
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.plugins import available
from fleetfl.protocol import chunks, messages, wire
from fleetfl.protocol.messages import Receipt, Release, Rollback, Snapshot, Status, Update
from fleetfl.protocol.signing import Keyring, Signer
from fleetfl.releases.frame_bounds import max_frame_bytes
from fleetfl.vectors import Layout

LORA = {"a": (8, 192), "b": (576, 8)}
LAYOUT = Layout(
    (
        *((f"blocks.{n}.attn.qkv.lora_{x}", shape) for n in range(6) for x, shape in LORA.items()),
        ("head.bias", (10,)),
        ("head.weight", (10, 192)),
    )
)
"""Of the shipped ViT with LoRA of rank 8: 38,794 values."""
ASSEMBLER_BYTES = 8 * 2**20
BOUND_BYTES = ASSEMBLER_BYTES + 32 * 2**20
"""The assembler, and what judging one frame needs: bodies of up to 1.2 MB, vectors of 155 KB."""
SLOWEST_MS = 50.0
CODECS = available("fleetfl.codecs")
SIGNER = Signer("f", Ed25519PrivateKey.from_private_bytes(bytes(32)))
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
NUMBERS = [0, 1, 2, 7, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 38_794]
VALUES: list[Any] = [
    None, True, -1, 0, 2**53, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"),
    "", "v1", "+", "a/b", "x" * 64, "x" * 100_000, b"", b"\0" * 8, b"\xff" * 32, b"\0" * 100_000,
    [], [[]], {}, {"a": 1}, "\0", "\ud7ff", "int8", "float32", "os", "..", *CODECS,
]  # fmt: skip


def sound_update(kind: str, body: bytes, **fields: Any) -> Update:
    defaults = {
        "vehicle": "v1", "boot": "3f9a01", "sequence": 0, "base_version": 0, "layout": LAYOUT.fingerprint,
        "num_examples": 320, "local_steps": 10, "captured_from": 1_700_000_000,
        "captured_to": 1_700_000_060, "loss": 0.7,
    }  # fmt: skip
    return Update(**{**defaults, **fields}, codec=kind, body=body)


def vectors() -> list[np.ndarray]:
    dice = np.random.default_rng(0)
    normal = dice.normal(size=LAYOUT.size).astype(np.float32) * np.float32(1e-3)
    sparse = np.where(dice.random(LAYOUT.size) < 0.01, normal, np.float32(0))
    return [normal, sparse, np.zeros(LAYOUT.size, np.float32), normal * np.float32(1e-38)]


class Corpus:
    """Sound messages, and edits of them. The same seed gives the same frames."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.sequence = 0
        self.bodies = [(k, decoder(k, LAYOUT).encode(v)) for k in CODECS for v in vectors()]
        self.others: list[messages.AnyMessage] = [
            Release("4f2a", 3, 2, LAYOUT.fingerprint, bytes(32), *self.bodies[0]),
            Snapshot("4f2a", 3, LAYOUT.fingerprint, bytes(32), *self.bodies[-1]),
            Rollback("x", "4f2a", 3, LAYOUT.fingerprint, bytes(32), *self.bodies[-1], "fog"),
            Receipt("v1", "3f9a01", 7, "refused", "stale", 9, 12, "9 versions late"),
            Status("v1", "3f9a01", "online", 3, 10, 20, 1, "cold", SIGNER.public, {"accepted": 3}),
        ]
        self.kinds = [
            (8, self.edited_body), (5, self.edited_inside), (4, self.edited_frame), (2, self.odd_field),
            (2, self.misnamed), (3, self.chunk), (1, self.bomb), (1, self.noise), (1, self.sound),
            (3, self.nested),
        ]  # fmt: skip
        self.weights = [weight for weight, _ in self.kinds]

    def next(self) -> tuple[str, bytes]:
        """What was done, and the payload."""
        (_, make), *_ = self.dice.choices(self.kinds, self.weights)
        return make.__name__, make()

    def body(self) -> tuple[str, bytes]:
        return self.dice.choice(self.bodies)

    def frame(self, kind: str, body: bytes) -> bytes:
        # A sequence number from the past would be a duplicate, and its body not looked at.
        self.sequence += self.dice.random() < 0.99
        update = sound_update(kind, body, sequence=self.sequence)
        signed = self.dice.random() < 0.05
        return wire.encode(update, SIGNER if signed else None)

    def edited(self, data: bytes) -> bytes:
        dice, edited = self.dice, bytearray(data)
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            # Heads are where the lengths are.
            size = len(edited)
            at = dice.randrange(min(size, 64) if dice.random() < 0.5 else size) if size else 0
            how = dice.randrange(8)
            if how == 0 and size:
                edited[at] ^= 1 << dice.randrange(8)
            elif how == 1 and size:
                edited[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            elif how == 2:
                del edited[at:]
            elif how == 3:
                del edited[at : at + dice.choice((1, 2, 4, 100))]
            elif how == 4:
                edited[at:at] = dice.randbytes(dice.choice((1, 2, 4, 100)))
            elif how == 5:
                edited[at : at + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(NUMBERS))
            elif how == 6:
                edited[at : at + 2] = struct.pack("<H", dice.choice(NUMBERS) & 0xFFFF)
            else:
                start = dice.randrange(size) if size else 0
                edited[at:at] = edited[start : start + dice.choice((4, 64, 4096))]
        return bytes(edited)

    def sound(self) -> bytes:
        return self.frame(*self.body())

    def edited_body(self) -> bytes:
        kind, body = self.body()
        return self.frame(kind, self.edited(body))

    def edited_inside(self) -> bytes:
        kind, body = self.body()
        at = body.find(ZSTD_MAGIC)
        if at < 0:
            return self.frame(kind, self.edited(body[:64]) + body[64:])
        raw = zstandard.ZstdDecompressor().decompress(body[at:])
        return self.frame(
            kind, body[:at] + zstandard.ZstdCompressor(level=1).compress(self.edited(raw))
        )

    def edited_frame(self) -> bytes:
        if self.dice.random() < 0.5:
            return self.edited(self.frame(*self.body()))
        signer = SIGNER if self.dice.random() < 0.5 else None
        return self.edited(wire.encode(self.dice.choice(self.others), signer))

    def odd_field(self) -> bytes:
        message = self.dice.choice([*self.others, sound_update(*self.body())])
        values = msgspec.msgpack.decode(wire.encode(message)[4:])
        values[self.dice.randrange(len(values))] = self.dice.choice(VALUES)
        return b"FFL\x02" + msgspec.msgpack.encode(values)

    def nested(self) -> bytes:
        """In any field, also past the last one; whole or cut, of any format, signed or not."""
        dice = self.dice
        message = dice.choice([*self.others, sound_update(*self.body())])
        values = msgspec.msgpack.decode(wire.encode(message)[4:])
        values += [0] * dice.choice((0, 0, 1, 3))
        parts = [msgspec.msgpack.encode(value) for value in values]
        at, level = dice.randrange(len(parts)), dice.choice(LEVELS)
        depth = dice.choice((1, 7, 8, 9, 10, 200, 990, 1200, 100_000))
        parts[at] = level * depth + dice.choice((b"\x01", b"\xc0", b"", parts[at]))
        content = b"\xdc" + struct.pack(">H", len(parts)) + b"".join(parts)
        frame = b"FFL" + bytes([dice.choice((2, 2, 2, 2, 1, 3))]) + content
        if dice.random() < 0.3:
            frame = frame[:3] + bytes([frame[3] | wire.SIGNED]) + content
            frame += SIGNER.sign(frame)
        return frame

    def misnamed(self) -> bytes:
        return self.frame(self.dice.choice(CODECS), self.body()[1])

    def noise(self) -> bytes:
        start = self.dice.choice((b"", b"FFL\x02", b"FFL\x82", chunks.MAGIC))
        return start + self.dice.randbytes(self.dice.choice((0, 1, 3, 20, 100, 5000)))

    def chunk(self) -> bytes:
        dice = self.dice
        if dice.random() < 0.2:  # of frames so large that few of them fit into the assembler
            return dice.choice(LARGE)
        if dice.random() < 0.5:
            pieces = chunks.split(self.frame(*self.body()), dice.choice((600, 4096, 16_384)))
            piece = dice.choice(pieces)
            return self.edited(piece) if dice.random() < 0.3 else piece
        data, many = dice.randbytes(dice.choice((0, 1, 2, 1000))), dice.choice(NUMBERS) & 0xFFFF
        total = dice.choice((len(data) * many, dice.choice(NUMBERS), len(data) + 1)) & 0xFFFFFFFF
        index = dice.choice((0, 1, max(0, many - 1), many)) & 0xFFFF
        transfer = bytes([dice.randrange(4)]) * 8
        head = chunks.HEADER.pack(chunks.MAGIC, transfer, index, many, total, crc32(data))
        return head + data

    def bomb(self) -> bytes:
        """Small frames that ask for much."""
        dice = self.dice
        what = dice.randrange(5)
        if what == 0:  # sizes that are declared and not there
            prefix = dice.choice((b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"))
            return b"FFL\x02\x9d\x01" + prefix + b"\xff\xff\xff\xff" + dice.randbytes(8)
        if what == 1:
            return b"FFL\x02" + dice.choice((b"\x91", b"\x81\xa1a")) * dice.choice(
                (10, 1000, 50_000)
            )
        kind = dice.choice(CODECS)
        if what == 2:  # zeros, honestly declared
            packed = ZEROS[dice.randrange(len(ZEROS))]
        elif what == 3:  # a header that declares what it likes
            size = dice.choice((2**20, 2**31, 2**63, 2**64 - 1))
            packed = ZSTD_MAGIC + b"\xe0" + struct.pack("<Q", size) + dice.randbytes(20)
        else:  # no size declared
            packed = UNSIZED
        _, body = dice.choice([(k, b) for k, b in self.bodies if k == kind])
        cut = body.find(ZSTD_MAGIC)
        start = body[:cut] if cut >= 0 else body[: dice.randrange(40)] + b"\1"
        return self.frame(kind, dice.choice((b"", b"\1", start)) + packed)


LEVELS = (b"\x91", b"\x92\x01", b"\x81\xa1a", b"\x81\x91", b"\xdc\0\1", b"\xdf\0\0\0\1\xa0")
LARGE = chunks.split(random.Random(0).randbytes(ASSEMBLER_BYTES * 3 // 4), 65_536)
ZEROS = [zstandard.compress(bytes(size)) for size in (10**5, 10**6, 10**8)]
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10**8))


class WayIn:
    """What a gateway and an aggregator do with a payload, without a broker."""

    def __init__(self, folder: Path) -> None:
        for name in ("v1", "server"):
            (folder / f"{name}.pub").write_text(SIGNER.public_line(name))
        self.listed = Keyring("f", folder)
        self.noting = Keyring("f", folder / "noted", first_use=True, max_keys=3)
        self.assembler = chunks.Assembler(max_bytes=ASSEMBLER_BYTES, ttl_s=60.0)
        self.bounded = chunks.Assembler(max_frame_bytes=max_frame_bytes(LAYOUT), ttl_s=60.0)
        self.came_to: Counter[str] = Counter()
        self.fresh()

    def fresh(self) -> None:
        """A model that no earlier frame has pushed anywhere."""
        self.coordinator = Coordinator.from_settings(
            CoordinatorSettings(aggregator=FedBuff(goal=10), release=Int8()),
            np.zeros(LAYOUT.size, np.float32),
            LAYOUT,
        )

    def take(self, payload: bytes, sender: str, now_s: float, *, signed: bool) -> None:
        self.came_to[self._outcome(payload, sender, now_s, signed=signed)] += 1

    def _outcome(self, payload: bytes, sender: str, now_s: float, *, signed: bool) -> str:
        number = len(payload)
        keys = (self.listed, self.noting)[number % 2] if signed else None
        try:
            assembler = (self.assembler, self.bounded)[number % 2]
            frame = assembler.add(sender, payload, now_s)
            if frame is None:
                return "chunk kept"
            message = wire.decode(frame, keys, sender=(None, "v1", "server")[number % 3])
        except wire.SignatureError:
            return "not believed"
        except wire.UnreadableError as unreadable:
            return f"unreadable, {'named' if unreadable.named else 'nameless'}"
        except wire.WireError:
            return "wire error"
        wire.encode(message)  # whatever is read can be sent
        return self._judged(message)

    def _judged(self, message: messages.AnyMessage) -> str:
        if isinstance(message, Update):
            outcome = self.coordinator.submit(message)
            return f"{outcome.verdict} {outcome.reason.value if outcome.reason else ''}".strip()
        if isinstance(message, Release | Snapshot | Rollback):
            try:
                decoder(message.codec, LAYOUT).decode(message.body)
            except codecs.CodecError:
                return "codec error"
        return "message"


def run(frames: int, seed: int, folder: Path) -> dict[str, Any]:
    corpus, way_in, dice = Corpus(seed), WayIn(folder), random.Random(seed)
    for _ in range(1000):  # imports, caches and pools of the libraries
        way_in.take(corpus.sound(), "v1", 0.0, signed=False)
    way_in.came_to.clear()
    warnings.simplefilter("error")  # numpy's, of an overflow or the like, would be findings too
    base = peak_bytes_from_now()
    failures: list[str] = []
    slowest, slowest_kind, began = 0, "", time.monotonic()
    for number in range(frames):
        kind, payload = corpus.next()
        if number % 1000 == 0:
            way_in.fresh()
        sender, signed = f"v{dice.randrange(50)}", dice.random() < 0.1
        start = time.thread_time_ns()
        try:
            way_in.take(payload, sender, number / 1000, signed=signed)
        except Exception:
            failures.append(f"frame {number} ({kind}): {traceback.format_exc()}")
        took = time.thread_time_ns() - start
        if took > slowest:
            slowest, slowest_kind = took, kind
        if number % 50_000 == 49_999:
            print(f"{number + 1:,} frames, {len(failures)} failures", file=sys.stderr)
    return {
        "frames": frames,
        "seed": seed,
        "other_exceptions": len(failures),
        "peak_bytes_above_base": peak_bytes() - base,
        "bound_bytes": BOUND_BYTES,
        "slowest_ms": round(slowest / 1e6, 2),
        "slowest_kind": slowest_kind,
        "seconds": round(time.monotonic() - began, 1),
        "came_to": dict(way_in.came_to.most_common()),
        "chunk_drops": dict(way_in.assembler.drops),
        "failures": failures[:20],
    }


def peak_bytes_from_now() -> int:
    """What this process holds; the peak is counted anew from there. Linux."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The most that this process held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def run_with_coverage(seconds: int, folder: Path) -> None:
    """libFuzzer's loop, from the sound frames on; it prints, and stops the process at a finding."""
    import atheris  # pyright: ignore[reportMissingImports]

    for name in sorted(sys.modules):
        if name.startswith("fleetfl"):
            for thing in vars(sys.modules[name]).values():
                _instrument(atheris, thing, name)
    seeds = folder / "corpus"
    seeds.mkdir()
    corpus, way_in = Corpus(0), WayIn(folder)
    for number, (kind, body) in enumerate(corpus.bodies):
        (seeds / f"body{number}").write_bytes(bytes([2 + CODECS.index(kind)]) + body)
    for number, message in enumerate(corpus.others):
        (seeds / f"frame{number}").write_bytes(b"\0" + wire.encode(message))
        (seeds / f"signed{number}").write_bytes(b"\1" + wire.encode(message, SIGNER))
    for number, piece in enumerate(chunks.split(bytes(1000), 400)):
        (seeds / f"chunk{number}").write_bytes(b"\0" + piece)

    def one(data: bytes) -> None:
        """First byte: as it stands, with keys, or a body for the codec of that number."""
        route, rest = data[:1] or b"\0", data[1:]
        if route[0] >= 2:
            kind = CODECS[(route[0] - 2) % len(CODECS)]
            way_in.fresh()
            way_in.take(wire.encode(sound_update(kind, rest)), "v1", 0.0, signed=False)
        else:
            way_in.take(rest, "v1", 0.0, signed=route == b"\1")

    options = [f"-max_total_time={seconds}", "-max_len=200000", "-timeout=5", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *options, str(seeds)], one)
    atheris.Fuzz()


def _instrument(atheris: Any, thing: Any, module: str) -> None:
    if isinstance(thing, FunctionType) and thing.__module__ == module:
        atheris.instrument_func(thing)
    elif isinstance(thing, type) and thing.__module__ == module:
        for part in vars(thing).values():
            _instrument(atheris, getattr(part, "__func__", part), module)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--coverage", type=int, metavar="SECONDS", help="guided by coverage")
    options = parser.parse_args()
    if options.coverage:
        # libFuzzer ends the process itself, so this folder stays, with the frames that it found new.
        run_with_coverage(options.coverage, Path(tempfile.mkdtemp(prefix="fleetfl-fuzz-")))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = run(options.frames, options.seed, Path(folder))
    for name, value in figures.items():
        print(f"{name:24}{value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    sound = (
        not figures["other_exceptions"]
        and figures["peak_bytes_above_base"] < BOUND_BYTES
        and figures["slowest_ms"] < SLOWEST_MS
    )
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
