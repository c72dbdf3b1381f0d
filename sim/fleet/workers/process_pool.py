"""Trainings in processes of our own on this machine, one a core. (On Ray: sim/fleet/workers/ray_pool.py.)

A process that has torch and timm imported forks off the others: two imports of three seconds less on two
cores, and theirs is under way while whoever asks for trainings does his own.
"""

import contextlib
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from fleetfl import FleetflError
from fleetfl.models import ModelConfig
from sim.fleet.workers.ray_pool import KEEP_MEMORY, Worker
from sim.processes.children import end_with_parent
from vehicle_agent.training import Assignment, Config, LocalTraining

IMPORTED = ["sim.fleet.workers.preload"]
"""By the process that the others are forked from. It runs nothing, so it has no threads."""

T = TypeVar("T")

_worker: list[Worker] = []
"""The one of a process that trains; empty elsewhere."""


class TrainingProcesses:
    """A context, inside of which the processes live. Entering it waits for nothing; the first result does."""

    def __init__(self, config: Config, model: ModelConfig, *, seed: int, workers: int) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
        self.context = multiprocessing.get_context("forkserver" if forks else "spawn")
        given = (config, model, seed)
        self.pool = ProcessPoolExecutor(workers, self.context, initializer=_begin, initargs=given)
        self._rows: int | None = None

    def __enter__(self) -> "TrainingProcesses":
        if self.context.get_start_method() == "forkserver":
            from multiprocessing import forkserver

            self.context.set_forkserver_preload(IMPORTED)
            with _environment(KEEP_MEMORY):  # which a process reads when it begins
                forkserver.ensure_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    @property
    def rows_at_once(self) -> int:
        """Images that a step looks at. Raises FleetflError if the processes cannot be had."""
        if self._rows is None:
            with _environment(KEEP_MEMORY):
                asked = self.pool.submit(_rows)
            self._rows = _result(asked)
        return self._rows

    def submit(self, todo: Sequence[Assignment]) -> Callable[[], list[LocalTraining]]:
        """Start them on the next process that is free; what is given back waits for the results.

        Raises FleetflError then if a process was killed.
        """
        return functools.partial(_result, self.pool.submit(_train, list(todo), self.rows_at_once))


def _result(asked: Future[T]) -> T:
    try:
        return asked.result()
    except BrokenProcessPool as killed:
        raise FleetflError("a process that trains was killed: out of memory?") from killed


def _begin(config: Config, model: ModelConfig, seed: int) -> None:
    end_with_parent()
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
