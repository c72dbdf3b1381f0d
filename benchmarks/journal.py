"""Updates a second that the journal keeps, and how long each waits until it is on disk.

Claim: at least 1,000 updates a second of 1.5 KB, each on disk (fsync) before it is acknowledged.

Run: python benchmarks/journal.py [--folder FOLDER] [--json FILE]

As many tasks as a gateway has updates in flight (32) append one update after the other; each waits for its
commit. "alone" is one task, so every update pays for an fsync of its own. With two gateways, each is a
process with a connection of its own to the same file. The rows are read back and checked at the end. A
figure is the disk's as much as ours: FOLDER should be on the disk that the server uses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from pathlib import Path

from fleetfl.protocol.messages import Update
from fleetfl.storage.journal import Journal

TARGET_PER_S = 1_000
BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def update(vehicle: str, sequence: int) -> Update:
    return Update(vehicle, "b", sequence, 0, bytes(8), 1, 1, 0, 0, 0.5, "float32", b"")


async def waits_s(path: Path, gateway: int, tasks: int, seconds: float, size: int) -> list[float]:
    """Of each update, from append to commit."""
    waits: list[float] = []
    frame = random.Random(gateway).randbytes(size)
    until = time.perf_counter() + seconds

    async def fill(vehicle: str) -> None:
        sequence = 0
        while (began := time.perf_counter()) < until:
            await journal.append(update(vehicle, sequence), frame)
            waits.append(time.perf_counter() - began)
            sequence += 1

    with contextlib.closing(Journal(path)) as journal:
        await asyncio.gather(*(fill(f"g{gateway}-v{number}") for number in range(tasks)))
    return waits


def work(path: Path, gateway: int, tasks: int, seconds: float, size: int) -> list[float]:
    return asyncio.run(waits_s(path, gateway, tasks, seconds, size))


def measured(
    folder: Path, gateways: int, tasks: int, seconds: float, size: int
) -> dict[str, float]:
    """Rate and latencies, all gateways together."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = Path(name) / "journal.sqlite"
        Journal(path).close()
        jobs = [(path, number, tasks, seconds, size) for number in range(gateways)]
        with multiprocessing.get_context("spawn").Pool(gateways) as pool:
            waits = sorted(wait for some in pool.starmap(work, jobs) for wait in some)
        with contextlib.closing(Journal(path)) as journal:
            began = time.perf_counter()
            rows = journal.rows(0, len(waits) + 1)
            read_s = time.perf_counter() - began
        assert len(rows) == len(waits), f"{len(waits)} acknowledged, {len(rows)} kept"
        assert all(row.is_whole for row in rows)
    ms = [1000 * wait for wait in waits]
    histogram = {f"le_{bound}": sum(wait <= bound for wait in ms) for bound in BOUNDS_MS}
    return {
        "gateways": gateways,
        "tasks": tasks,
        "bytes": size,
        "updates_per_s": round(len(waits) / seconds, 1),
        "median_ms": round(statistics.median(ms), 2),
        "p99_ms": round(ms[int(0.99 * len(ms))], 2),
        "worst_ms": round(ms[-1], 2),
        "read_per_s": round(len(rows) / read_s, 1),
        **histogram,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    rows = []
    for gateways, tasks, size in (
        (1, 1, 1_500),
        (1, 32, 1_500),
        (2, 32, 1_500),
        (1, 256, 1_500),
        (1, 32, 250_000),
    ):
        row = measured(options.folder, gateways, tasks, options.seconds, size)
        rows.append(row)
        print(", ".join(f"{key} {value:,}" for key, value in row.items()), flush=True)
    best = next(r["updates_per_s"] for r in rows if (r["gateways"], r["tasks"]) == (1, 32))
    print(
        f"one gateway, 32 in flight: {best / TARGET_PER_S:.1f} x the target of {TARGET_PER_S:,}/s"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
