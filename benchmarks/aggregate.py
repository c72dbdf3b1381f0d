"""Updates folded a second by FedBuff, beside the fastest form numpy has and beside Flower.

Claim: with 10 float32 updates a step, already in memory, FedBuff folds at least 10,000 updates/s of 294,912
values (rank 8 in a ViT-B) and 800 of 5.5 million (a whole ViT-Ti), on two cores.

Run: python benchmarks/aggregate.py [--json FILE]

All compute the mean of the same updates, weighted by their numbers of examples:

- floor: `weights @ buffer` on one float32 [K, P]: BLAS, all cores. Nobody receives updates in this form, and
  its bits differ from one processor to the next.
- fleetfl: FedBuff.add, K times. No weight is 1, so that no product is saved. "with step" adds the server's
  step: SGD.apply, rate 1, no momentum.
- flower: `aggregate` of flwr.server.strategy, one tensor an update. "messages" is `aggregate_arrayrecords`,
  what its FedAvg calls today; there updates are serialized arrays.

Flower gets an environment of its own (PyPI, about 300 MB, installed once). Every measurement is a process of
its own, one after the other, in turn for several rounds; a figure is the median of the rounds' medians.
Processes whose means differ end the run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# fleetfl and flwr are imported where they are measured: each is in an environment without the other.
TARGETS_PER_S = {294_912: 10_000, 5_500_000: 800}
GOAL = 10
FLOOR, FLOWER = "floor", "flower"
FLOWER_REQUIREMENT = "flwr==1.41.0"

Folding = Callable[[], Any]
"""Folds K updates; gives their mean, float32 [P], as an array or as something with `numpy()`."""


def inputs(size: int) -> tuple[list[np.ndarray], list[int]]:
    """The updates, float32 [P] each, and their numbers of examples; the same in every process."""
    rng = np.random.default_rng(0)
    updates = [rng.standard_normal(size, np.float32) * np.float32(0.01) for _ in range(GOAL)]
    return updates, [8 * (i + 1) for i in range(GOAL)]


def floor(size: int) -> Folding:
    updates, examples = inputs(size)
    buffer, weights = np.stack(updates), np.array(examples, np.float32) / np.float32(sum(examples))
    return lambda: weights @ buffer


def fleetfl(size: int) -> Folding:
    from actors.malloc import keep_freed
    from fleetfl.aggregators.fedbuff import Config
    from fleetfl.staleness.constant import Config as Constant

    keep_freed(256 * 2**20)  # as the server's aggregator does
    updates, examples = inputs(size)
    buffer = Config(
        goal=GOAL, staleness=Constant(), normalize="weights", weigh_examples=True
    ).build(size)

    def fold() -> np.ndarray:
        for update, num_examples in zip(updates, examples, strict=True):
            step = buffer.add(update, vehicle="v", num_examples=num_examples, staleness=0)
        assert step is not None
        return step.change

    return fold


def fleetfl_with_step(size: int) -> Folding:
    from fleetfl.aggregators import Step
    from fleetfl.server_optimizers.sgd import Config

    fold, optimizer, params = fleetfl(size), Config().build(size), np.zeros(size, np.float32)
    return lambda: optimizer.apply(params, Step(fold(), ()))


def flower(size: int) -> Folding:
    from flwr.server.strategy.aggregate import aggregate

    updates, examples = inputs(size)
    results = [([update], n) for update, n in zip(updates, examples, strict=True)]
    return lambda: aggregate(results)[0]


def flower_messages(size: int) -> Folding:
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    updates, examples = inputs(size)
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(update)}),
                "metrics": MetricRecord({"num-examples": n}),
            }
        )
        for update, n in zip(updates, examples, strict=True)
    ]
    return lambda: aggregate_arrayrecords(records, "num-examples")["w"]


CONTENDERS = {
    FLOOR: floor,
    "fleetfl": fleetfl,
    "fleetfl, with step": fleetfl_with_step,
    FLOWER: flower,
    "flower, messages": flower_messages,
}


def measure(name: str, size: int) -> None:
    """Print as JSON: median updates a second of one contender, and a sample of its mean to compare."""
    folding = CONTENDERS[name](size)
    for _ in range(3):
        mean = folding()
    seconds = []
    for _ in range(max(10, 40_000_000 // size)):
        start = time.perf_counter()
        mean = folding()
        seconds.append(time.perf_counter() - start)
    values = mean if isinstance(mean, np.ndarray) else mean.numpy()
    sample = [float(value) for value in values[:: size // 100]]
    print(json.dumps({"per_s": GOAL / statistics.median(seconds), "sample": sample}))


def flower_python(folder: Path) -> Path:
    """The interpreter of Flower's environment in `folder`, made if it is not there."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", FLOWER_REQUIREMENT], check=True)
    return python


def per_s_in_turn(pythons: dict[str, Path], size: int, rounds: int) -> dict[str, float]:
    """Median updates a second of each contender. Raises ValueError if their means differ."""
    rates: dict[str, list[float]] = {name: [] for name in pythons}
    expected = None
    for _ in range(rounds):
        for name, python in pythons.items():
            command = [python, __file__, "--measure", name, str(size)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(out)
            rates[name].append(result["per_s"])
            expected = result["sample"] if expected is None else expected
            if not np.allclose(result["sample"], expected, rtol=1e-4, atol=1e-7):
                raise ValueError(f"{name}, {size} values: another mean than {FLOOR}'s")
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-flower", action="store_true", help="installs nothing")
    parser.add_argument(
        "--flower-env", type=Path, default=Path.home() / ".cache" / "fleetfl" / "flower"
    )
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], int(options.measure[1]))
        return
    pythons = {name: Path(sys.executable) for name in CONTENDERS if not name.startswith(FLOWER)}
    if not options.without_flower:
        python = flower_python(options.flower_env)
        pythons |= {name: python for name in CONTENDERS if name.startswith(FLOWER)}
    rows = []
    print(f"{'':20}{'values':>10}{'updates/s':>11}{'of floor':>10}{'of target':>11}")
    for size, target in TARGETS_PER_S.items():
        rates = per_s_in_turn(pythons, size, options.rounds)
        for name, rate in rates.items():
            share = rate / rates[FLOOR]
            print(f"{name:20}{size:10,}{rate:11,.0f}{share:10.3f}{rate / target:10.2f}x")
            rows.append(
                {
                    "name": name,
                    "num_values": size,
                    "updates_per_s": round(rate, 1),
                    "share_of_floor": round(share, 4),
                }
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
