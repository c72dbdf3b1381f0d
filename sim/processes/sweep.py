"""Sweeps over trials: each trial is measured in its own process and is one line of a results file.

A sweep that was stopped continues where it was, and a larger one measures only the new trials.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

from fleetfl import FleetflError
from fleetfl.version import commit
from sim.processes.children import end_with_parent

Line = dict[str, Any]


class TrialError(FleetflError):
    """Raised when the process of a trial died before it had a result."""


def key_of(*settings: Any) -> str:
    """Key of a trial's settings, 16 hexadecimal digits; trials with equal settings have equal keys."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured(
    log: Path,
    trials: Mapping[str, Any],
    measure: Callable[[Any], Line],
    *,
    workers: int | None = None,
) -> Iterator[dict[str, Line]]:
    """Yield the results by key: first those that the log has, then again after every finished trial.

    `measure` and each trial are pickled to another process. A line has its `key` and the `commit` that
    made it.

    Raises TrialError when such a process dies: no memory left, or killed.
    """
    known = {line["key"]: line for line in _lines(log)}
    done = {key: known[key] for key in trials if key in known}
    yield dict(done)
    work = {key: trial for key, trial in trials.items() if key not in done}
    if not work:
        return
    try:
        with closing(_in_processes(work, measure, min(_cores(workers), len(work)))) as results:
            for key, result in results:
                done[key] = {"key": key, "commit": commit(), **result}
                with log.open("a") as file:
                    file.write(json.dumps(done[key]) + "\n")
                yield dict(done)
    except BrokenProcessPool:
        raise TrialError(
            f"the process of a trial died with {len(trials) - len(done)} of {len(trials)} left: "
            f"out of memory, killed, or `measure` cannot be imported; finished trials are in {log}"
        ) from None


def _cores(workers: int | None) -> int:
    return workers or os.cpu_count() or 1


def _in_processes(
    work: Mapping[str, Any], measure: Callable[[Any], Line], size: int
) -> Generator[tuple[str, Line], None, None]:
    """Yield (key, result) as trials finish in `size` processes. Raises BrokenProcessPool."""
    # spawn: torch and Ray do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(size, spawn, initializer=end_with_parent)
    try:
        under_way = {pool.submit(measure, trial): key for key, trial in work.items()}
        for future in as_completed(under_way):
            yield under_way[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # Stopped in the middle, nobody waits for minutes until the running trials are done.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()


def _lines(log: Path) -> list[Line]:
    """Complete lines of the log. A line cut off when the machine stopped is skipped, and ended in the
    file.
    """
    whole = log.read_text() if log.exists() else ""
    if whole and not whole.endswith("\n"):
        with log.open("a") as file:
            file.write("\n")
    lines = []
    for text in whole.splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
