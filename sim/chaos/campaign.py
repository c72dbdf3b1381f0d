"""A campaign of chaos runs in parallel; results are written as they come, so that a stopped one resumes."""

import json
import queue
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fleetfl.config import read_with, table, validate
from fleetfl.config.usage import Usage
from fleetfl.evaluation.held_out import HeldOut
from fleetfl.registry.adapter_file import write_adapter
from sim.chaos.cluster import ray_cluster
from sim.chaos.config import ChaosConfig
from sim.chaos.plan import planned
from sim.chaos.run import run
from sim.chaos.summary import has_failed

RUNS_PER_CLUSTER = 25
"""Runs before a Ray cluster is replaced: a cluster's memory grows with every job."""

USAGE = Usage(
    "fleetfl chaos run",
    ("fleet", "seed", "model", "transport", "server", "vehicle.agent", "vehicle.codec", "chaos"),
    {
        "num_partitions": "one gateway takes all updates",
        **dict.fromkeys(("transport.host", "transport.port"), "each run has a broker of its own"),
        **dict.fromkeys(
            [
                f"server.{name}"
                for name in ("state", "initial", "held_out", "http", "monitor", "ray")
            ],
            "each run sets its own",
        ),
        "vehicle": "the vehicles of a run train on noise and keep the default outbox",
    },
    belongs_to_others=("sim", "bench", "compare"),
)

Result = dict[str, Any]


class Campaign:
    """Chaos runs of the seeds `seed`, `seed + 1`, ... with the settings of one file."""

    def __init__(
        self,
        path: Path,
        overrides: Sequence[str],
        *,
        runs: int,
        seed: int,
        workers: int,
        force: bool,
    ) -> None:
        """Raises ConfigError."""
        self.path, self.workers = path, workers
        self.seeds = range(seed, seed + runs)
        self.tree = read_with(path, overrides)
        USAGE.require(self.tree, str(path), overrides)
        self.tree.setdefault("transport", {"kind": "mqtt"})
        self.config = validate(self.tree, "chaos", ChaosConfig, str(path))
        self.folder = (self.config.runs / self.config.fleet).absolute()
        self.log = self.folder / "results.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.force = force
        self.stopping = threading.Event()

    def go(self) -> Iterator[Result]:
        """Yield the results, earlier ones first; each is on disk before it is yielded."""
        self._prepare()
        if self.force:  # after the settings are checked, so that an error costs no result
            others = [result for result in self._all() if result["seed"] not in self.seeds]
            self.log.write_text("".join(json.dumps(result) + "\n" for result in others))
        before = [result for result in self._all() if result["seed"] in self.seeds]
        yield from before
        done = {result["seed"] for result in before}
        left: queue.SimpleQueue[int] = queue.SimpleQueue()
        for seed in self.seeds:
            if seed not in done:
                left.put(seed)
        yield from self._results(left, len(self.seeds) - len(done))

    def _results(self, left: "queue.SimpleQueue[int]", count: int) -> Iterator[Result]:
        results: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()

        def work(number: int) -> None:
            try:
                self._work(number, left, results)
            except BaseException as bug:
                results.put(bug)

        with ThreadPoolExecutor(self.workers, thread_name_prefix="chaos") as pool:
            try:
                for number in range(self.workers):
                    pool.submit(work, number)
                for _ in range(count):
                    result = results.get()
                    if isinstance(result, BaseException):
                        raise result
                    with self.log.open("a") as log:
                        log.write(json.dumps(result) + "\n")
                    yield result
            finally:
                self.stopping.set()

    def _work(self, number: int, left: "queue.SimpleQueue[int]", results: Any) -> None:
        """Worker thread: run seeds from `left` until none remains. Raises ServerError."""
        while not (left.empty() or self.stopping.is_set()):
            with ray_cluster(self.folder / f"ray-{number}.log") as address:
                for _ in range(RUNS_PER_CLUSTER):
                    try:
                        seed = left.get_nowait()
                    except queue.Empty:
                        return
                    result = self._run(seed, address)
                    if self.stopping.is_set():
                        return
                    results.put(result)

    def _run(self, seed: int, address: str) -> Result:
        result = self._once(seed, address)
        if not (result["has_begun"] or self.stopping.is_set()):
            # A run that failed before any fault, as on a machine too busy to start a server, is repeated.
            result = self._once(seed, address) | {"first_try": result["why"]}
        if not has_failed(result):
            shutil.rmtree(self.folder / f"seed-{seed}", ignore_errors=True)
        return result

    def _once(self, seed: int, address: str) -> Result:
        folder = self.folder / f"seed-{seed}"
        plan = planned(self.config, seed)
        return run(self.config, self.tree, plan, folder, address=address, stopping=self.stopping)

    def _all(self) -> list[Result]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def _prepare(self) -> None:
        """Write the initial adapter that all runs start from, and held-out frames for the evaluator."""
        initial, held_out = self.folder / "initial.safetensors", self.folder / "held_out.npz"
        self.tree["server"] = {
            **table(self.tree, "server", str(self.path)),
            "initial": str(initial),
            "held_out": str(held_out),
        }
        if initial.exists() and held_out.exists():
            return
        model = self.config.model.build(seed=self.config.seed)
        write_adapter(initial, model.layout, model.vector())
        size = (8, model.image_size, model.image_size, 3)
        frames = HeldOut(np.zeros(size, np.uint8), np.zeros(8, np.int64), np.full(8, "clear"))
        frames.save(held_out)
