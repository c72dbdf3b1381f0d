"""The same virtual fleet on other processors: `events.jsonl` has the same bytes.

Claim: on this processor and on those named with --cpus, which QEMU makes up instruction by instruction.

Run: python benchmarks/same_bytes.py [--cpus EPYC Haswell]     (needs qemu-x86_64: Debian's qemu-user)

Six vehicles train the shipped ViT, three updates are counted. An emulated processor takes some minutes.
`EPYC` is AMD's first one (2017), with AVX2 and without AVX-512; `Haswell` Intel's of 2013.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "sim.num_vehicles=6",
    "sim.stop.updates=3",
    "sim.dataset.num_initial=40",
    "sim.dataset.num_held_out=20",
    "sim.evaluate_every_s=100000",
    "server.aggregator.goal=2",
    "vehicle.trainer.local_steps=2",
    "vehicle.trainer.batch_size=4",
)


def digest_on(cpu: str | None) -> tuple[str, str, float]:
    """SHA-256 of the events, the instructions that ATen used, and seconds."""
    machine = [] if cpu is None else ["qemu-x86_64", "-cpu", cpu]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fleetfl-") as folder:
        command = [*machine, sys.executable, "-m", "fleetfl", "sim", "run"]
        command.append(str(ROOT / "configs/virtual-fleet.yaml"))
        for setting in (*SETTINGS, f"sim.runs={folder}"):
            command += ["--set", setting]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        if done.returncode:
            raise SystemExit(f"on {cpu or 'this processor'}:\n{done.stderr[-3000:]}")
        results = Path(folder) / "virtual-fleet"
        events = hashlib.sha256((results / "events.jsonl").read_bytes()).hexdigest()
        instructions = json.loads((results / "summary.json").read_text())["instructions"]
    return events, instructions, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cpus", nargs="+", default=["EPYC"], help="see: qemu-x86_64 -cpu help")
    options = parser.parse_args()
    if shutil.which("qemu-x86_64") is None:
        raise SystemExit("qemu-x86_64 is not here: apt-get install qemu-user")
    ours, instructions, seconds = digest_on(None)
    print(f"{'this one':12} {ours[:16]} {instructions:8} {seconds:7.0f} s", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as runs:
        for cpu, (theirs, used, seconds) in zip(
            options.cpus, runs.map(digest_on, options.cpus), strict=True
        ):
            verdict = "the same bytes" if theirs == ours else "OTHER BYTES"
            print(f"{cpu:12} {theirs[:16]} {used:8} {seconds:7.0f} s  {verdict}", flush=True)


if __name__ == "__main__":
    main()
