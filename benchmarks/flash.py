"""Bytes that a vehicle writes to its disk for an update, its receipt and the release between two of them.

Claim: an update of 38,794 values in one packet costs at most 50 KB, with its residual, its receipt and the
release adopted before it; the write-ahead log's way into the file and a daily restart included.

Run: python benchmarks/flash.py [--folder FOLDER] [--updates N] [--json FILE]

The real UpdateQueue, Outbox and Follower; a server's Published makes the releases. Bytes are `write_bytes` of
/proc/self/io, as the kernel counts pages of 4 KB that a process has sent to a disk, so FOLDER has to be on
one, and not in memory. Deltas are normal values, whose residual packs no better than a trained one.
"cycle" is all of it, averaged: a release, an update from it, its receipt; over N of them, a close and a
reopening every `--restart` of them. The rest is what one of its kind costs in the middle (median), without
its share of what the log costs later.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetfl.codecs.spectral import Config as Spectral
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Update
from fleetfl.protocol.signing import Signer
from fleetfl.releases.versions import Follower, Published
from fleetfl.vectors import Layout
from vehicle_agent.outbox import Memory, Outbox
from vehicle_agent.update_queue import UpdateQueue

BUDGET_BYTES = 50_000
LAYOUT = Layout(
    (
        *(
            (f"blocks.{block}.attn.qkv.lora_{part}", shape)
            for block in range(6)
            for part, shape in (("a", (8, 192)), ("b", (576, 8)))
        ),
        ("head.bias", (10,)),
        ("head.weight", (10, 192)),
    )
)


def written_bytes() -> int:
    """By this process since it began, to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


async def at_once(call: Callable[..., Any], *given: Any) -> Any:
    return call(*given)


class Vehicle:
    """What an agent does to its disk, without sensor, training and link."""

    def __init__(self, path: Path) -> None:
        self.path, self.rng = path, np.random.default_rng(0)
        self.signer = Signer("f", Ed25519PrivateKey.generate())
        vector = self.rng.normal(size=LAYOUT.size).astype(np.float32)
        codec = Spectral(bits_per_value=0.37)
        self.published = Published(vector, LAYOUT, codec, generation="one", max_staleness=50)
        self.follower = Follower(LAYOUT)
        self.follower.adopt(self.published.whole())
        self.sequence, self.frame_bytes = 0, 0
        self.boot = "boot0"
        self.open()

    def open(self) -> None:
        self.outbox = Outbox(self.path)
        self.books = UpdateQueue(
            self.outbox, Spectral(), LAYOUT, vehicle="v", decay=0.9, sign=self.signed, work=at_once
        )

    def signed(self, update: Update) -> bytes:
        return wire.encode(update, self.signer)

    def restart(self) -> None:
        self.outbox.close()
        self.open()
        self.follower.held = self.outbox.held(LAYOUT)
        assert self.follower.held is not None
        assert self.follower.held.sha256 == self.published.sha256

    def release(self) -> None:
        step = 0.01 * self.rng.normal(size=LAYOUT.size).astype(np.float32)
        self.follower.apply(self.published.advance(self.published.vector + step))

    async def update(self) -> None:
        held = self.follower.held
        assert held is not None
        self.sequence += 1
        draft = Update(
            vehicle="v001",
            boot=self.boot,
            sequence=self.sequence,
            base_version=held.version,
            layout=LAYOUT.fingerprint,
            num_examples=256,
            local_steps=8,
            captured_from=1_700_000_000,
            captured_to=1_700_000_060,
            loss=0.5,
            codec="spectral",
            body=b"",
            generation=held.generation,
        )
        delta = 0.01 * self.rng.normal(size=LAYOUT.size).astype(np.float32)
        memory = Memory(self.sequence, 256 * self.sequence, [float(self.sequence)] * 10)
        update = await self.books.keep(draft, delta, memory, held)
        self.frame_bytes = len(self.signed(update))

    async def receipt(self, verdict: Any = "accepted") -> None:
        assert await self.books.settle((self.boot, self.sequence), verdict, "")


def sync(folder: Path) -> None:
    """What the kernel would have written by itself before the next update, a minute later."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file)


async def cost(folder: Path, act: Callable[[], Awaitable[None]]) -> int:
    sync(folder)
    before = written_bytes()
    await act()
    sync(folder)
    return written_bytes() - before


async def measured(folder: Path, updates: int, restart: int) -> dict[str, Any]:
    vehicle = Vehicle(folder / "outbox.db")
    first = await cost(folder, vehicle.update)
    await vehicle.receipt()
    kinds: dict[str, list[int]] = {"update": [], "update after a release": [], "receipt": []}
    kinds["receipt, refused"] = []
    for number in range(12):
        verdict = "refused" if number % 4 == 3 else "accepted"
        kinds["update"].append(await cost(folder, vehicle.update))
        await vehicle.receipt()
        vehicle.release()
        kinds["update after a release"].append(await cost(folder, vehicle.update))
        kind = "receipt, refused" if verdict == "refused" else "receipt"
        kinds[kind].append(await cost(folder, lambda verdict=verdict: vehicle.receipt(verdict)))
    sync(folder)
    before, began_s = written_bytes(), time.thread_time()
    for number in range(updates):
        vehicle.release()
        await vehicle.update()
        sync(folder)
        await vehicle.receipt()
        sync(folder)
        if number % restart == restart - 1:
            vehicle.restart()
    vehicle.restart()
    sync(folder)
    return {
        "frame": vehicle.frame_bytes,
        "first update": first,
        **{kind: int(statistics.median(costs)) for kind, costs in kinds.items()},
        "cycle": round((written_bytes() - before) / updates),
        "cycle_cpu_ms": round(1000 * (time.thread_time() - began_s) / updates, 2),
        "file": vehicle.path.stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--restart", type=int, default=250, help="once in so many updates")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        found = asyncio.run(measured(Path(name), options.updates, options.restart))
    print(f"{'an update of':26}{found['frame']:>12,} bytes")
    for kind in [k for k in found if "update" in k or "receipt" in k or k == "cycle"]:
        times, share = found[kind] / found["frame"], found[kind] / BUDGET_BYTES
        print(f"{kind:26}{found[kind]:>12,} bytes written, {times:5.0f} x its own size")
        if kind == "cycle":
            print(f"{'':26}{share:>12.2f} of the budget of {BUDGET_BYTES:,}")
    print(f"{'processor':26}{found['cycle_cpu_ms']:>12,} ms; file {found['file']:,} bytes")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
