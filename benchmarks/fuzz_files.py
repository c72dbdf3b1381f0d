"""A million hostile settings and files of our own, each through the one door of its kind.

Claim: nothing but the door's own error comes out (ConfigError, CheckpointError, AdapterFileError,
ReleaseFileError, IdentityError, JournalError, StatusError), and no input takes SLOWEST_MS of processor time.

Run: python benchmarks/fuzz_files.py [--inputs 1000000] [--only settings] [--seed 0] [--json FILE]

Settings are YAML: sound ones, edited as text (lines moved, indented, repeated, cut; tags, anchors and aliases
put in; values nested in any place) and as values. Files are sound ones, edited as bytes, with their digests
put right where they have one, so that more than the digest sees the edit.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from actors.config import ServerConfig
from actors.monitoring import status
from fleetfl import FleetflError
from fleetfl.config import ConfigError, validate
from fleetfl.config.settings_file import parsed
from fleetfl.coordination.deduplication import Contribution
from fleetfl.events.event_log import EventReader
from fleetfl.protocol.signing import IdentityError, OneKey, Signer
from fleetfl.registry.adapter_file import AdapterFileError, read_adapter, write_adapter
from fleetfl.registry.release_file import Record, ReleaseFileError, read_release, write_release
from fleetfl.storage.checkpoints import CheckpointError, Checkpoints
from fleetfl.storage.journal import Journal, JournalError
from fleetfl.vectors import Layout, digest

SLOWEST_MS = 2_000.0
"""Of processor time; for settings of half a megabyte, of which PyYAML reads 100 KB a second."""
LAYOUT = Layout((("a", (3, 4)), ("b", (5,))))
SETTINGS = """\
fleet: depot-7
model: {classes: [car, cyclist, pedestrian], backbone: {kind: fleet_vit}, adapter: {kind: lora, rank: 4}}
transport: {kind: mqtt, host: broker.example, port: 1883, username: a, password: secret}
server:
  state: state/server
  aggregator: {kind: fedbuff, goal: 10}
  optimizer: {kind: sgd, learning_rate: 1.0}
  release: {kind: spectral, bits_per_value: 0.37}
  limits: {updates_per_s: 20, burst: 100}
  http: {host: 127.0.0.1, port: 8000}
  keys: {policy: first_use}
vehicle: {name: v1}
"""
BITS = (
    "&a ", "*a", "<<: *a", "!!python/object:os.system ", "!!binary ", "!!set ", "? ", "- ", "{", "}", "[",
    "]", ": ", "~", "null", "yes", "0x", "1e400", ".nan", "-.inf", "2020-02-31", "12:34:56", "\t", "'", '"',
    "\0", "|\n", ">\n", "%YAML 9\n", "---\n", "...\n", "#", "9" * 400, "\ud7ff",
    "\u2028", "kind", "..", "os.path",
)  # fmt: skip
ODD: list[Any] = [
    None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x" * 500, "..", "a/b", "\0", [], {}, [[]], {"kind": 1},
    {"kind": ".."}, {"a": {"b": {}}}, b"\xff",
]  # fmt: skip


def edited(dice: random.Random, data: bytes) -> bytes:
    """Bits, bytes, cuts, copies and numbers of four bytes."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        at, how = dice.randrange(len(changed) + 1), dice.randrange(6)
        if how == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif how == 1 and at < len(changed):
            changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif how == 2:
            del changed[at : at + dice.choice((1, 4, 100))]
        elif how == 3:
            changed[at:at] = dice.randbytes(dice.choice((1, 4, 40)))
        elif how == 4:
            changed[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"))
        elif dice.random() < 0.1:
            del changed[at:]
    return bytes(changed)


def often(dice: random.Random, small: tuple[int, ...], large: tuple[int, ...]) -> int:
    """Mostly a small one: PyYAML takes a thousand times as long for what is nested deep."""
    return dice.choice(large if dice.random() < 0.03 else small)


def nested(dice: random.Random, value: Any, depth: int = 0) -> Any:
    """The value with something odd, or deep, in one place."""
    if dice.random() < 0.3 or depth > 6 or not isinstance(value, (dict, list)) or not value:
        deep: Any = dice.choice(ODD)
        for _ in range(often(dice, (0, 0, 1, 2, 8), (50, 150, 600))):
            deep = [deep] if dice.random() < 0.5 else {"a": deep}
        return deep
    if isinstance(value, dict):
        key = dice.choice(list(value))
        return {**value, key: nested(dice, value[key], depth + 1)}
    at = dice.randrange(len(value))
    return [*value[:at], nested(dice, value[at], depth + 1), *value[at + 1 :]]


class Doors:
    """Each takes one hostile input; what it raises beside its own error is a finding."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.dice = folder, random.Random(seed)
        self.sound = self._made()
        self.all: dict[str, tuple[Callable[[], object], type[FleetflError]]] = {
            "settings": (self.settings, ConfigError),
            "checkpoint": (self.checkpoint, CheckpointError),
            "adapter": (self.adapter, AdapterFileError),
            "release": (self.release, ReleaseFileError),
            "key": (self.key, IdentityError),
            "row": (self.row, JournalError),
            "events": (self.events, FleetflError),
            "page": (self.page, status.StatusError),
        }

    def _made(self) -> dict[str, bytes]:
        vector = np.arange(LAYOUT.size, dtype=np.float32)
        write_adapter(self.folder / "adapter", LAYOUT, vector, version=3)
        record = Record(
            generation="3-a1b2c3", version=3, parent="3-a1b2c3/2", sha256=digest(vector).hex(),
            layout=LAYOUT.fingerprint.hex(), num_values=LAYOUT.size, created=1.5, row=7,
            updates=(Contribution("v1", "b", 0, 0, 8),), config="c", code="0.1",
        )  # fmt: skip
        write_release(self.folder / "release", record, LAYOUT, vector)
        Checkpoints(self.folder / "made").write(
            1, {"vector": vector, "ledger": [["v1", 3]], "row": 1}
        )
        one = Signer.from_file("f", self.folder / "key.pem")
        (self.folder / "key").write_text(one.public_line("v1"))
        journal = Journal(self.folder / "journal.sqlite")
        journal._commit([("v1", "b", 0, 1.0, 5, b"FFL\x02")])
        self.journal = journal
        (made,) = (self.folder / "made").glob("*.checkpoint")
        files = {"checkpoint": made, **{n: self.folder / n for n in ("adapter", "release", "key")}}
        return {name: path.read_bytes() for name, path in files.items()}

    def _file(self, kind: str) -> Path:
        path = self.folder / f"odd-{kind}"
        path.write_bytes(edited(self.dice, self.sound[kind]))
        return path

    def settings(self) -> None:
        dice = self.dice
        if dice.random() < 0.5:
            lines = [line for line in SETTINGS.split("\n") if dice.random() < 0.3] or ["fleet: f"]
            for _ in range(dice.choice((1, 2, 4))):
                at = dice.randrange(len(lines))
                cut = dice.randrange(len(lines[at]) + 1)
                lines[at] = (
                    lines[at][:cut]
                    + dice.choice(BITS) * often(dice, (1, 1, 2), (150,))
                    + lines[at][cut:]
                )
            tree = parsed("\n".join(lines), "fuzz")
        else:
            tree = nested(dice, TREE)
            if dice.random() < 0.1:
                tree = parsed(json.dumps(tree, default=str), "fuzz")
        if isinstance(tree, dict):
            validate(tree, "server", ServerConfig, "fuzz")

    def checkpoint(self) -> None:
        content = self.sound["checkpoint"][36:]
        if self.dice.random() < 0.2:
            content = self.dice.choice((b"\x91", b"\x81\xa1a", b"\xc9\xff\xff\xff\xff\1")) * 3000
        content = edited(self.dice, content)
        folder = self.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        (folder / f"{1:020d}.checkpoint").write_bytes(b"FFC1" + sha256(content).digest() + content)
        Checkpoints(folder).newest()

    def adapter(self) -> None:
        read_adapter(self._file("adapter"))

    def release(self) -> None:
        read_release(self._file("release"))

    def key(self) -> None:
        OneKey("f", self._file("key"))

    def row(self) -> None:
        odd = (None, b"\xff", "text", 2**62, -1.5, b"", "\ud7ff")
        values = [
            self.dice.choice(odd) if self.dice.random() < 0.4 else v
            for v in ("v1", "b", 1, 5, b"FFL")
        ]
        values = [0 if value is None else value for value in values]
        sql = "UPDATE OR IGNORE updates SET vehicle = ?, boot = ?, sequence = ?, checksum = ?, frame = ?"
        self.journal.writer.execute(sql, values)
        self.journal.rows(0, 9)

    def events(self) -> None:
        path = self.folder / "odd-events"
        line = json.dumps({"time": 1.0, "event": "released", "version": 3}).encode()
        odd = self.dice.choice((b"[" * 5000, b"7", b"null", b'{"a":' * 5000, line))
        path.write_bytes(edited(self.dice, odd) + b"\n" + line + b"\n")
        for event in EventReader(path).read():
            event["event"]

    def page(self) -> None:
        pages = {"metrics": METRICS, "fleet": FLEET}
        which = self.dice.choice(list(pages))
        pages[which] = edited(self.dice, pages[which])
        if self.dice.random() < 0.3:
            pages["fleet"] = json.dumps(nested(self.dice, json.loads(FLEET)), default=str).encode()
        status._fetched = lambda url, timeout_s: pages[url.rsplit("/", 1)[1]]
        status.look("http://fuzz")


TREE = yaml.safe_load(SETTINGS)
METRICS = b"""\
# HELP fleetfl_up 1 if the part answers.
# TYPE fleetfl_up gauge
fleetfl_up{part="aggregator"} 1.0
fleetfl_up{part="gateway 0"} 1.0
# TYPE fleetfl_version gauge
fleetfl_version{part="aggregator"} 12.0
# TYPE fleetfl_journal_commit_seconds histogram
fleetfl_journal_commit_seconds_bucket{le="0.1",part="gateway 0"} 3.0
fleetfl_journal_commit_seconds_bucket{le="+Inf",part="gateway 0"} 4.0
"""
FLEET = json.dumps(
    [{"vehicle": "v1", "boot": "b", "state": "online", "version": 3, "bytes_up": 1, "bytes_down": 2,
      "waiting": 0, "note": "", "key": "", "outcomes": {"accepted": 3}, "silent_s": 1.0}]
).encode()  # fmt: skip


def run(inputs: int, seed: int, folder: Path, only: str | None = None) -> dict[str, Any]:
    """As many inputs, half of them settings."""
    doors = Doors(folder, seed)
    names = [only] if only else ["settings", *[name for name in doors.all if name != "settings"]]
    weights = [1 if only else len(names) - 1, *[1] * (len(names) - 1)]
    came_to: Counter[str] = Counter()
    failures: list[str] = []
    slowest, slowest_kind, began = 0, "", time.monotonic()
    for number in range(inputs):
        (name,) = doors.dice.choices(names, weights)
        take, own = doors.all[name]
        start = time.thread_time_ns()
        try:
            take()
            came_to[f"{name} read"] += 1
        except own:
            came_to[f"{name} refused"] += 1
        except Exception:
            failures.append(f"input {number} ({name}): {traceback.format_exc()}")
        took = time.thread_time_ns() - start
        if took > slowest:
            slowest, slowest_kind = took, name
        if number % 50_000 == 49_999:
            print(f"{number + 1:,} inputs, {len(failures)} failures", file=sys.stderr)
    return {
        "inputs": inputs,
        "seed": seed,
        "other_exceptions": len(failures),
        "slowest_ms": round(slowest / 1e6, 2),
        "slowest_kind": slowest_kind,
        "seconds": round(time.monotonic() - began, 1),
        "came_to": dict(came_to.most_common()),
        "failures": failures[:20],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--only", help="one kind, such as settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    logging.disable()  # each damaged file is told, as it should be
    with tempfile.TemporaryDirectory() as folder:
        figures = run(options.inputs, options.seed, Path(folder), options.only)
    for name, value in figures.items():
        print(f"{name:24}{value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(1 if figures["other_exceptions"] or figures["slowest_ms"] > SLOWEST_MS else 0)


if __name__ == "__main__":
    main()
