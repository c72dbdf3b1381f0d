"""Cells of a grid: each is measured in a process of its own and is one line of a file.

So a grid that was stopped goes on where it was, and one that grew measures only what is new.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from fleetfl import FleetflError
from fleetfl.version import commit
from sim.processes.children import end_with_parent

Line = dict[str, Any]


class TrialError(FleetflError):
    """A cell could not be measured."""


def key_of(*settings: Any) -> str:
    """Equal for cells that would come out equal."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured(
    log: Path,
    cells: Mapping[str, Any],
    measure: Callable[[Any], Line],
    *,
    workers: int | None = None,
) -> Iterator[dict[str, Line]]:
    """Lines by key, of those cells that are done: first what the log has, then more after every cell.

    `measure` and each cell cross to another process. A line has its `key` and the `commit` that made it.

    Raises CellError when such a process dies: no memory left, or killed.
    """
    known = {line["key"]: line for line in _lines(log)}
    done = {key: known[key] for key in cells if key in known}
    yield dict(done)
    work = {key: trial for key, trial in cells.items() if key not in done}
    if not work:
        return
    # spawn: torch and Ray do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    size = min(workers or os.cpu_count() or 1, len(work))
    pool = ProcessPoolExecutor(size, spawn, initializer=end_with_parent)
    try:
        under_way = {pool.submit(measure, trial): key for key, trial in work.items()}
        for future in as_completed(under_way):
            key = under_way[future]
            done[key] = {"key": key, "commit": commit(), **future.result()}
            with log.open("a") as file:
                file.write(json.dumps(done[key]) + "\n")
            yield dict(done)
    except BrokenProcessPool:
        raise TrialError(
            f"a process that measured a cell died with {len(cells) - len(done)} of {len(cells)} left: "
            f"out of memory, killed, or `measure` is not to be imported; what is done is in {log}"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # Stopped in the middle, nobody waits for minutes until the cells under way are done.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()


def _lines(log: Path) -> list[Line]:
    """What was being written when the machine stopped is left out, and ended, so that more may follow."""
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
