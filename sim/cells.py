"""Cells of a grid: each is measured in a process of its own and is one line of a file.

So a grid that was stopped goes on where it was, and one that grew measures only what is new.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fleetfl.code_version import commit

Line = dict[str, Any]


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
    """
    known = {line["key"]: line for line in _lines(log)}
    done = {key: known[key] for key in cells if key in known}
    yield dict(done)
    work = [(key, measure, cell) for key, cell in cells.items() if key not in done]
    if not work:
        return
    # spawn: torch and Ray do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers or os.cpu_count() or 1, len(work))) as pool:
        for key, result in pool.imap_unordered(_measured, work):
            done[key] = {"key": key, "commit": commit(), **result}
            with log.open("a") as file:
                file.write(json.dumps(done[key]) + "\n")
            yield dict(done)


def _measured(work: tuple[str, Callable[[Any], Line], Any]) -> tuple[str, Line]:
    key, measure, cell = work
    return key, measure(cell)


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
