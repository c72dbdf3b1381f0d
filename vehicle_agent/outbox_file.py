"""The outbox's SQLite file: how it is opened, what is in it, and how an earlier version's becomes one.

Flash wears with every page that is written, so pages are small, each change touches few of them, and what is
large is written only when it is new. Knows no updates.
"""

import logging
import sqlite3
from pathlib import Path

import msgspec
import numpy as np

from vehicle_agent.residual import packed

log = logging.getLogger(__name__)

FORMAT = 2
"""In the file's `user_version`; those of the version before have 0."""
PAGE_BYTES = 512
"""The least that SQLite has. A change is a few of them, one after the other at the end of the log."""
LOG_BYTES = 4 * 2**20
"""Of the write-ahead log before its pages, as they are then, go into the file: every 150 updates or so."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY, boot TEXT, sequence INTEGER, lineage TEXT, base_version INTEGER,
    made_s REAL, num_bytes INTEGER, frame BLOB, UNIQUE (boot, sequence));
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY, boot TEXT, sequence INTEGER, lineage TEXT, base_version INTEGER,
    made_s REAL, num_bytes INTEGER, verdict TEXT, reason TEXT);
CREATE VIEW IF NOT EXISTS produced AS
    SELECT id, boot, sequence, NULL AS verdict, '' AS reason FROM waiting
    UNION ALL SELECT id, boot, sequence, verdict, reason FROM record;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS residual (
    one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, packed BLOB);
CREATE TABLE IF NOT EXISTS held (
    one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, lineage TEXT, version INTEGER, sha256 BLOB);
CREATE TABLE IF NOT EXISTS whole (one INTEGER PRIMARY KEY CHECK (one = 1), vector BLOB);
CREATE TABLE IF NOT EXISTS steps (number INTEGER PRIMARY KEY, codec TEXT, body BLOB);
"""

FROM_FORMAT_0 = """
DROP INDEX waiting;
ALTER TABLE produced RENAME TO old_produced;
ALTER TABLE residual RENAME TO old_residual;
ALTER TABLE held RENAME TO old_held;
"""

COPY_FORMAT_0 = """
INSERT INTO waiting SELECT id, boot, sequence, lineage, base_version, made_s, num_bytes, frame
    FROM old_produced WHERE verdict IS NULL;
INSERT INTO record SELECT id, boot, sequence, lineage, base_version, made_s, num_bytes, verdict, reason
    FROM old_produced WHERE verdict IS NOT NULL;
INSERT INTO held SELECT 1, layout, lineage, version, sha256 FROM old_held;
INSERT INTO whole SELECT 1, vector FROM old_held;
INSERT INTO state SELECT 'memory', packed FROM memory;
"""

DROP_FORMAT_0 = """
DROP TABLE old_produced; DROP TABLE old_residual; DROP TABLE old_held;
DROP TABLE lived; DROP TABLE memory; DROP TABLE ends;
"""


def connected(path: Path, *, watched: bool) -> sqlite3.Connection:
    """WAL, synchronous=FULL, of today's format; `watched` lets other processes read it meanwhile.

    Raises sqlite3.DatabaseError for a damaged file, of which OperationalError if the disk is to blame or
    another process has it.
    """
    db = sqlite3.connect(path, isolation_level=None)
    try:
        if not watched:
            # What others would have to see in shared memory is a file too, and written with every change.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
        _set_page_size(db)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        # Some builds of SQLite overwrite what is deleted with zeros: as many pages again.
        db.execute("PRAGMA secure_delete=OFF")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        _bring_up_to_date(db)
        db.execute(f"PRAGMA wal_autocheckpoint={LOG_BYTES // _number(db, 'page_size')}")
    except BaseException:
        db.close()
        raise
    return db


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return db.execute(f"PRAGMA {pragma}").fetchone()[0]


def _set_page_size(db: sqlite3.Connection) -> None:
    if not _number(db, "page_count"):
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    if (found := _number(db, "user_version")) > FORMAT:
        raise sqlite3.OperationalError(
            f"it has format {found}, and this version of fleetfl knows none above {FORMAT}"
        )
    if found < FORMAT:
        db.execute("BEGIN IMMEDIATE")
        try:
            is_old = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'lived'").fetchone()
            _run(db, FROM_FORMAT_0 if is_old else "")
            _run(db, SCHEMA)
            if is_old:
                _convert(db)
            db.execute(f"PRAGMA user_version={FORMAT}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    if _number(db, "page_size") != PAGE_BYTES:
        _make_pages_small(db)


def _convert(db: sqlite3.Connection) -> None:
    _run(db, COPY_FORMAT_0)
    rows = db.execute("SELECT verdict, reason, number FROM ends ORDER BY verdict, reason")
    outcomes = {f"{verdict} {reason}".rstrip(): number for verdict, reason, number in rows}
    (number,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM old_produced").fetchone()
    (lived_s,) = db.execute("SELECT COALESCE(MAX(seconds), 0.0) FROM lived").fetchone()
    for name, value in (("ends", outcomes), ("produced", number), ("lived", lived_s)):
        db.execute("INSERT INTO state VALUES (?, ?)", (name, msgspec.msgpack.encode(value)))
    for layout, vector in db.execute("SELECT layout, vector FROM old_residual").fetchall():
        residual = packed(np.frombuffer(vector, "<f4"))
        db.execute("INSERT INTO residual VALUES (1, ?, ?)", (layout, residual))
    _run(db, DROP_FORMAT_0)


def _run(db: sqlite3.Connection, script: str) -> None:
    """Statement by statement: `executescript` would commit what it finds begun."""
    for statement in script.split(";"):
        if statement.strip():
            db.execute(statement)


def _make_pages_small(db: sqlite3.Connection) -> None:
    try:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("VACUUM")
    except sqlite3.OperationalError as failed:
        log.warning("the outbox keeps its large pages until the next start: %s", failed)
    db.execute("PRAGMA journal_mode=WAL")
