"""The journal: updates on disk in the order in which they are counted. Knows SQLite, and no frame's content.

A gateway appends, and only then acknowledges; the aggregator reads the rows in their order and counts each
once. Any number of processes on one machine may hold the same journal.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

from pydantic import Field

from fleetfl.config import Section
from fleetfl.protocol.messages import Ban, Rollback, Update
from fleetfl.storage.journal_file import (
    JournalConnection,
    JournalDamaged,
    JournalError,
    is_damage,
    shared,
    transaction,
)

BATCH_BYTES = 16 * 2**20
"""Bytes of frames that are read or committed at a time, unless a single one is larger."""

__all__ = ["Config", "Journal", "JournalDamaged", "JournalError", "JournalRow", "Offset", "path_in"]

Entry = tuple[str, str, int, float, int, bytes]
"""Columns of a row without its number."""


class Config(Section):
    """Settings of how long rows stay that no recovery needs; rows that one may need always stay."""

    keep_s: float = Field(default=3600.0, ge=0)
    """Seconds that a row stays after its arrival. A longer time allows a slower backup and takes more
    disk."""
    keep_bytes: int = Field(default=64 * 2**20, ge=0)
    """Size of the whole file, bytes, beyond which the oldest rows are deleted sooner."""


@dataclass(frozen=True)
class Offset:
    """Place of an update in the journal."""

    row: int
    """Number of its row."""
    is_new: bool
    """Whether the row was added, rather than found there."""


@dataclass(frozen=True)
class JournalRow:
    """One row of the journal as it is read."""

    row: int
    """Number of the row."""
    frame: bytes
    """The update's frame."""
    is_whole: bool
    """Whether the checksum fits, so that these are the bytes that were appended."""
    kept_at: float
    """Time at which the frame was appended, UTC seconds."""


def path_in(state: Path) -> Path:
    """Path of the journal in a server's state folder."""
    return state / "journal" / "updates.sqlite"


class Journal:
    """The journal in one file. Rows are numbered in commit order: after row n was read, no smaller one
    appears.
    """

    def __init__(
        self, path: Path, *, committed: Callable[[int, float], None] | None = None
    ) -> None:
        """`committed` is called after each commit with the number of updates and the seconds that it took.

        The file is opened at the first use, and again after a failure: the disk may have been repaired.
        """
        self.path, self.committed = path, committed
        self.waiting: list[tuple[Entry, asyncio.Future[Offset]]] = []
        self.committing: asyncio.Task[None] | None = None
        self.one_thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        # One to write, by the thread, and one to read: neither sees the other's half-done work.
        self.to_write, self.to_read = JournalConnection(path), JournalConnection(path)

    @property
    def writer(self) -> sqlite3.Connection:
        return self.to_write.opened()

    @property
    def reader(self) -> sqlite3.Connection:
        return self.to_read.opened()

    async def append(self, update: Update | Rollback | Ban, frame: bytes) -> Offset:
        """Append an update; gives its row once it is on disk, and a repeat the row that it has already.

        Updates that come while a commit is under way share the next one, and its fsync.
        Raises JournalError; the update is not kept then.
        """
        name = (update.vehicle, update.boot, update.sequence)
        entry = (*name, time.time(), _checksum(name, frame), frame)
        place = asyncio.get_running_loop().create_future()
        self.waiting.append((entry, place))
        if self.committing is None or self.committing.done():
            self.committing = asyncio.create_task(self._commit_all(), name="journal.commit")
        return await place

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            size = _fitting([len(entry[-1]) for entry, _ in self.waiting])
            batch, self.waiting = self.waiting[:size], self.waiting[size:]
            entries = [entry for entry, _ in batch]
            try:
                places = await loop.run_in_executor(self.one_thread, self._commit, entries)
            except Exception as failed:  # whatever it is: those who wait must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(failed)
                continue
            for (_, future), place in zip(batch, places, strict=True):
                if not future.done():  # cancelled: whoever waited is gone, the update is kept
                    future.set_result(place)

    def _commit(self, entries: list[Entry]) -> list[Offset]:
        began = time.monotonic()
        with self._failures(), shared(self.path), transaction(self.writer):
            places = [self._inserted(entry) for entry in entries]
        if self.committed is not None:
            self.committed(len(entries), time.monotonic() - began)
        return places

    def _inserted(self, entry: Entry) -> Offset:
        # Not INSERT OR IGNORE: that takes a number for a repeat too, and a number without a row means damage.
        same = "SELECT row FROM updates WHERE vehicle = ? AND boot = ? AND sequence = ?"
        there = self.writer.execute(same, entry[:3]).fetchone()
        if there is not None:
            return Offset(there[0], is_new=False)
        added = self.writer.execute(
            "INSERT INTO updates (vehicle, boot, sequence, kept_at, checksum, frame)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            entry,
        )
        assert added.lastrowid is not None
        return Offset(added.lastrowid, is_new=True)

    def rows(self, after: int, limit: int) -> list[JournalRow]:
        """Up to `limit` rows past row `after`, in their order; fewer if they are large, but at least one.

        Raises JournalError.
        """
        found, num_bytes = [], 0
        with self._failures():
            for row in self.reader.execute(
                "SELECT row, vehicle, boot, sequence, checksum, CAST(frame AS BLOB), kept_at"
                " FROM updates WHERE row > ? ORDER BY row LIMIT ?",
                (after, limit),
            ):
                found.append(row)
                num_bytes += len(row[5])
                if num_bytes >= BATCH_BYTES:
                    break
        return [
            JournalRow(row, frame, _is_whole(checksum, (vehicle, boot, sequence), frame), kept_at)
            for row, vehicle, boot, sequence, checksum, frame, kept_at in found
        ]

    def newest_row(self) -> int:
        """Largest row number that was ever given; 0 before the first. Raises JournalError."""
        with self._failures():
            found = self.reader.execute("SELECT seq FROM sqlite_sequence").fetchone()
            return 0 if found is None else found[0]

    def number_past(self, row: int) -> bool:
        """Make sure that new rows get larger numbers than `row`; False if they would not have had them.

        A journal that was lost thus does not give numbers again that were counted. Raises JournalError.
        """
        with self._failures(), shared(self.path):
            return self.one_thread.submit(self._number_past, row).result()

    def _number_past(self, row: int) -> bool:
        with transaction(self.writer):
            found = self.writer.execute("SELECT seq FROM sqlite_sequence").fetchone()
            if found is not None and found[0] >= row:
                return True
            self.writer.execute("DELETE FROM sqlite_sequence")
            self.writer.execute("INSERT INTO sqlite_sequence VALUES ('updates', ?)", (row,))
            given = 0 if found is None else found[0]
            self.writer.execute("INSERT INTO skipped VALUES (?, ?)", (given + 1, row))
            return row == 0

    def missing(self, after: int, before: int | None = None) -> tuple[int, int] | None:
        """First and last number after row `after` that was given and has no row; None if there is none.

        `before` is the next row that is there; None if `after` is the last row. A gap whose reason is
        known does not count. Raises JournalError.
        """
        with self._failures():
            if before is None:
                # One statement, so that no commit comes between the two.
                given, newest = self.reader.execute(
                    "SELECT (SELECT seq FROM sqlite_sequence), (SELECT max(row) FROM updates)"
                ).fetchone()
                if newest is not None and newest > after:
                    return None
                before = 1 + (0 if given is None else int(given))
            first, last = after + 1, before - 1
            for begin, end in self.reader.execute("SELECT first, last FROM skipped ORDER BY first"):
                if begin <= first <= end:
                    first = end + 1
            return (first, last) if first <= last else None

    def skip(self, first: int, last: int) -> None:
        """Note that rows `first` to `last` are missing and were reported. Raises JournalError."""
        with self._failures(), shared(self.path):
            self.one_thread.submit(self._skip, first, last).result()

    def _skip(self, first: int, last: int) -> None:
        with transaction(self.writer):
            self.writer.execute("INSERT INTO skipped VALUES (?, ?)", (first, last))

    def copy_to(self, path: Path) -> None:
        """Copy all that is committed by now to `path`, while others go on. Raises JournalError."""
        with (
            self._failures(),
            shared(self.path),
            contextlib.closing(sqlite3.connect(path)) as copy,
        ):
            self.reader.backup(copy)
            # One file, that needs nothing beside it.
            copy.execute("PRAGMA journal_mode = DELETE")

    def drop(self, row: int) -> None:
        """Delete one row, so that its update is a new one when it comes again. Raises JournalError."""
        with self._failures(), shared(self.path):
            self.one_thread.submit(self._delete, "row = ?", row).result()

    def trim(self, upto: int, config: Config) -> None:
        """Delete rows up to `upto` that are older, or more, than `config` allows. Raises JournalError."""
        with self._failures(), shared(self.path):
            self.one_thread.submit(self._trim, upto, config).result()

    def _trim(self, upto: int, config: Config) -> None:
        # Rows are as good as in order of time: read no further than the first young one.
        first = "SELECT row FROM updates WHERE kept_at >= ? ORDER BY row LIMIT 1"
        young = self.writer.execute(first, (time.time() - config.keep_s,)).fetchone()
        self._delete("row <= ? AND row < ?", upto, upto + 1 if young is None else young[0])
        used = self._pragma("page_size") * (self._pragma("page_count") - self._freed())
        oldest, newest = self.writer.execute("SELECT min(row), max(row) FROM updates").fetchone()
        if used > config.keep_bytes and oldest is not None:
            # As many of the oldest as the excess would be, were all rows of one size.
            excess = (newest - oldest + 1) * (used - config.keep_bytes) / used
            self._delete("row <= ? AND row < ?", upto, oldest + excess)

    def _freed(self) -> int:
        """Number of free pages, which new rows will use again."""
        return self._pragma("freelist_count")

    def _pragma(self, name: str) -> int:
        return self.writer.execute(f"PRAGMA {name}").fetchone()[0]

    def _delete(self, where: str, *values: float) -> None:
        with transaction(self.writer):
            self.writer.execute(f"DELETE FROM updates WHERE {where}", values)

    def close(self) -> None:
        self.one_thread.shutdown()
        self.to_write.close()
        self.to_read.close()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as failed:
            kind = JournalDamaged if is_damage(failed) else JournalError
            self.to_write.is_doubtful = self.to_read.is_doubtful = True
            raise kind(f"journal {self.path}: {failed}") from failed


def _fitting(sizes: list[int]) -> int:
    """Number of leading entries that fit into BATCH_BYTES together; at least one, if there is one."""
    within = sum(total <= BATCH_BYTES for total in accumulate(sizes))
    return max(within, min(1, len(sizes)))


def _is_whole(checksum: Any, name: tuple[Any, Any, Any], frame: Any) -> bool:
    """Whether the checksum fits; damage may have given the values any type."""
    try:
        return checksum == _checksum(name, frame)
    except Exception:
        return False


def _checksum(name: tuple[str, str, int], frame: bytes) -> int:
    return crc32(repr(name).encode(), crc32(frame))
