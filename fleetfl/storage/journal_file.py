"""The journal's SQLite file: its tables, how it is opened, and who may write to it. Knows no update."""

import contextlib
import fcntl
import functools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fleetfl import FleetflError

BUSY_S = 30.0
"""Longest wait, seconds, of a commit for those of other gateways."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS updates (
    -- AUTOINCREMENT: the number of a deleted row is never given again.
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    vehicle TEXT NOT NULL, boot TEXT NOT NULL, sequence INTEGER NOT NULL,
    kept_at REAL NOT NULL, checksum INTEGER NOT NULL, frame BLOB NOT NULL,
    UNIQUE (vehicle, boot, sequence)
)
"""
SKIPPED = """
CREATE TABLE skipped (
    -- Numbers that no row has, and why is known: they were passed over, or their loss was told.
    first INTEGER NOT NULL, last INTEGER NOT NULL
)
"""


class JournalError(FleetflError, RuntimeError):
    """The journal cannot be written or read; names the file and why (full, read-only, damaged)."""


class JournalDamaged(JournalError):
    """The file itself is broken, not one row: `journal_repair.repair` saves what can be read."""


class JournalConnection:
    """Connection to the file at the journal's path, opened again when a repair has replaced the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.is_doubtful = False

    def opened(self) -> sqlite3.Connection:
        """The connection, opened if need be. Raises sqlite3.Error or OSError."""
        if self.connection is not None and not self.is_doubtful and self._named() == self.file:
            return self.connection
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.with_name(self.path.name + ".new").exists():
            raise JournalDamaged(f"journal {self.path}: its repair was cut off")
        self.connection = connected(self.path)
        with transaction(self.connection):
            _prepare(self.connection)
        self.file, self.is_doubtful = self._named(), False
        return self.connection

    def _named(self) -> tuple[int, int] | None:
        try:
            about = self.path.stat()
        except FileNotFoundError:
            return None
        return about.st_dev, about.st_ino

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def _prepare(connection: sqlite3.Connection) -> None:
    """Create missing tables; in a file from before `skipped`, all numbers given so far may lack a row."""
    connection.execute(SCHEMA)
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'skipped'").fetchone()
    if known is None:
        connection.execute(SKIPPED)
        connection.execute("INSERT INTO skipped SELECT 1, seq FROM sqlite_sequence")


def connected(path: Path) -> sqlite3.Connection:
    """A new connection with durable commits. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # With NORMAL, a commit would outlive the process but not the machine's power.
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    # What damage has made of a text is for the checksum to notice.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
    return connection


def is_damage(failed: Exception) -> bool:
    """Whether SQLite's error means that the file itself is damaged."""
    # Python 3.10 has no sqlite_errorcode.
    said = str(failed)
    return "malformed" in said or "not a database" in said


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Context for writing to the file, which `alone` waits for. Raises OSError."""
    with _locked(path, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Context for replacing the file, in which nobody writes to it. Raises OSError."""
    with _locked(path, fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    lock = path.with_name("lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Context of one transaction. Raises sqlite3.Error, with nothing changed."""
    # IMMEDIATE: rows get their numbers while no other process writes.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
