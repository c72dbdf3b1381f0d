"""Repairs a damaged journal: sets the file aside, and makes another one of the rows that can be read.

A row that cannot be read keeps its number, with a checksum that fits nothing, so that whoever has not
counted it yet meets it as damaged. Knows SQLite, and of a frame nothing.
"""

import contextlib
import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from fleetfl.storage.journal_file import (
    SCHEMA,
    SKIPPED,
    JournalError,
    alone,
    connected,
    is_damage,
    transaction,
)

log = logging.getLogger(__name__)

UNKNOWN = 1_000_000
"""Row numbers left free where the last one given cannot be read: more than may be under way."""
INSERT = "INSERT OR IGNORE INTO updates VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Repair:
    """Result of repairing a damaged journal."""

    aside: Path
    """Path of the damaged file now."""
    saved: int
    """Number of rows saved into the new file."""
    lost: tuple[int, ...]
    """Numbers of the rows that exist and cannot be read."""
    is_complete: bool
    """Whether no row past the floor is missing, not even one of which nothing is left."""


def repair(path: Path, floor: int) -> Repair | None:
    """Exchange a damaged file for a sound one; None if nothing is wrong with it.

    New rows get larger numbers than `floor` and than all that were given. Raises JournalError.
    """
    new = path.with_name(path.name + ".new")
    try:
        with alone(path):
            if _finish(path, new) or _is_sound(path):
                return None
            partial = path.with_name(path.name + ".partial")
            partial.unlink(missing_ok=True)
            made = _salvage(path, partial, floor)
            partial.replace(new)
            path.rename(made.aside)
            with contextlib.suppress(FileNotFoundError):
                wal = made.aside.with_name(made.aside.name + "-wal")
                path.with_name(path.name + "-wal").rename(wal)
            _finish(path, new)
    except (sqlite3.Error, OSError) as failed:
        raise JournalError(
            f"journal {path} is damaged and cannot be repaired: {failed}"
        ) from failed
    return made


def _finish(path: Path, new: Path) -> bool:
    """Put the new file in place, also for a repair that was cut off before; False if there is none."""
    if not new.exists():
        return False
    for rest in ("-wal", "-shm"):
        # Of the damaged file; the new one would take them for its own.
        path.with_name(path.name + rest).unlink(missing_ok=True)
    new.replace(path)
    return True


def _is_sound(path: Path) -> bool:
    try:
        with contextlib.closing(connected(path)) as connection:
            return connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError as failed:
        if is_damage(failed):
            return False
        raise


def _salvage(path: Path, into: Path, floor: int) -> Repair:
    """Copy all rows that can be read into a new file."""
    whole, known, are_all, given = _read(path)
    lost = tuple(sorted(known - whole.keys()))
    with contextlib.closing(sqlite3.connect(into, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = FULL")
        copy.execute(SCHEMA)
        copy.execute(SKIPPED)
        with transaction(copy):
            copy.executemany(INSERT, (whole[row] for row in sorted(whole)))
            unread = ((row, "", "unread", row, time.time(), -1, b"") for row in lost)
            copy.executemany(INSERT, unread)
            newest = last = max([floor, *known])
            newest = newest + UNKNOWN if given is None else max(newest, given)
            copy.execute("DELETE FROM sqlite_sequence")
            copy.execute("INSERT INTO sqlite_sequence VALUES ('updates', ?)", (newest,))
            copy.execute("INSERT INTO skipped VALUES (?, ?)", (last + 1, newest))
    is_complete = are_all and all(row <= floor for row in lost)
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    return Repair(aside, len(whole), lost, is_complete)


def _read(path: Path) -> tuple[dict[int, tuple], set[int], bool, int | None]:
    """Readable rows; numbers of all rows, whether these are complete, and the last number given, if known."""
    whole: dict[int, tuple] = {}
    given = None
    try:
        connection = connected(path)
    except sqlite3.DatabaseError:
        return {}, set(), False, None
    with contextlib.closing(connection):
        with contextlib.suppress(sqlite3.DatabaseError):
            found = connection.execute("SELECT seq FROM sqlite_sequence").fetchone()
            given = 0 if found is None else found[0]
        known, are_all = _numbers(connection)
        for row in known:
            with contextlib.suppress(sqlite3.DatabaseError):
                found = connection.execute("SELECT * FROM updates WHERE row = ?", (row,)).fetchone()
                if found is not None:
                    whole[row] = found
    return whole, known, are_all, given


def _numbers(connection: sqlite3.Connection) -> tuple[set[int], bool]:
    """Row numbers, and whether they are complete: table and index have them, and both are read from
    each end.
    """
    found: set[int] = set()
    are_all = False
    for direction in ("", " DESC"):
        for order in (
            f"row{direction}",
            f"vehicle{direction}, boot{direction}, sequence{direction}",
        ):
            with contextlib.suppress(sqlite3.DatabaseError):
                for (row,) in connection.execute(f"SELECT row FROM updates ORDER BY {order}"):
                    found.add(row)
                are_all = True
    return found, are_all
