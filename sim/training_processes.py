"""Trainings in processes of our own on this machine, one a core. (On Ray: sim/training_pool.py.)"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from fleetfl import FleetflError
from fleetfl.models import ModelConfig
from sim.processes import die_with_parent
from sim.training_pool import KEEP_MEMORY, Worker
from vehicle_agent.trainer import Assignment, Config
from vehicle_agent.training import LocalTraining

_worker: list[Worker] = []
"""The one of a process that trains; empty elsewhere."""


class TrainingProcesses:
    """A context, inside of which the processes live. Each starts Python and torch anew: some seconds."""

    def __init__(self, config: Config, model: ModelConfig, *, seed: int, workers: int) -> None:
        given = (config, model, seed)
        self.pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=given
        )
        self.workers = workers

    def __enter__(self) -> "TrainingProcesses":
        with _environment(KEEP_MEMORY):  # which a process reads when it begins
            asked = [self.pool.submit(_rows) for _ in range(self.workers)]
            self.rows_at_once = asked[0].result()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def submit(self, todo: Sequence[Assignment]) -> Callable[[], list[LocalTraining]]:
        """Start them on the next process that is free; what is given back waits for the results.

        Raises FleetflError then if a process was killed.
        """
        trained = self.pool.submit(_train, list(todo), self.rows_at_once)

        def results() -> list[LocalTraining]:
            try:
                return trained.result()
            except BrokenProcessPool as killed:
                raise FleetflError("a process that trains was killed: out of memory?") from killed

        return results


def _begin(config: Config, model: ModelConfig, seed: int) -> None:
    die_with_parent()
    _worker.append(Worker(config, model, seed=seed))


def _rows() -> int:
    return _worker[0].rows_for()


def _train(todo: Sequence[Assignment], rows: int) -> list[LocalTraining]:
    return _worker[0].train(todo, rows)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
