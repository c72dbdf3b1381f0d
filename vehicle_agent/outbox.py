"""Updates on their way, on disk until it is known what became of them. Knows no network.

The same file is the vehicle's record of what it produced and how each update ended, and has what training
goes on from after a restart: the residual of error feedback, the trainer's memory and the version held. All
of it changes in the transaction of the update it belongs to, so that after a power cut no part of what was
learned is there twice or not at all.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fleetfl import FleetflError
from fleetfl.messages import Update
from fleetfl.releases import Held
from fleetfl.vectors import digest

log = logging.getLogger(__name__)

Verdict = Literal["accepted", "duplicate", "refused", "expired"]
Name = tuple[str, int]
"""(boot, sequence)"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS produced (
    id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT, sequence INTEGER, lineage TEXT,
    base_version INTEGER, made_s REAL, num_bytes INTEGER, verdict TEXT, reason TEXT, frame BLOB,
    UNIQUE (boot, sequence));
CREATE INDEX IF NOT EXISTS waiting ON produced (id) WHERE verdict IS NULL;
CREATE TABLE IF NOT EXISTS ends (
    verdict TEXT, reason TEXT, number INTEGER, PRIMARY KEY (verdict, reason));
CREATE TABLE IF NOT EXISTS lived (one INTEGER PRIMARY KEY CHECK (one = 1), seconds REAL);
CREATE TABLE IF NOT EXISTS residual (
    one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, vector BLOB);
CREATE TABLE IF NOT EXISTS memory (one INTEGER PRIMARY KEY CHECK (one = 1), packed BLOB);
CREATE TABLE IF NOT EXISTS held (
    one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, lineage TEXT, version INTEGER, sha256 BLOB,
    vector BLOB);
"""


class OutboxError(FleetflError, OSError):
    """The outbox cannot be written or read: a full, read-only or broken disk."""


class Config(BaseModel):
    """What an outbox may hold. The oldest give way, and are counted by reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_age_s: float = Field(default=21 * 86_400.0, gt=0)
    """Of an update without a receipt, in seconds that the agent ran since: no clock is asked for the date."""
    max_bytes: int = Field(default=256 * 2**20, ge=2**10)
    """Of all frames that wait."""
    max_updates: int = Field(default=1_000, ge=1)
    """That wait. Training rests at `agent.max_waiting`; with that above this it goes on in a long tunnel,
    and what an old update held goes into a new one."""
    max_record: int = Field(default=10_000, ge=0)
    """Updates of known end that stay on record."""


class Memory(msgspec.Struct, frozen=True):
    """What training goes on from, beside the residual and the version held."""

    num_trained: int = 0
    """Trainings over all boots: each draws random numbers of its own."""
    num_read: int = 0
    """Frames taken from the sensor over all boots."""
    class_counts: list[float] = []
    """The trainer's: frames so far by class."""


@dataclass(frozen=True)
class Waiting:
    boot: str
    sequence: int
    lineage: str
    base_version: int
    num_bytes: int
    age_s: float
    """Seconds that the agent ran since it was made."""

    @property
    def name(self) -> Name:
        return self.boot, self.sequence


@dataclass(frozen=True)
class Produced:
    """One line of the record."""

    id: int
    boot: str
    sequence: int
    verdict: Verdict | None
    """None while it waits."""
    reason: str
    """Of a refusal: the server's; of an expiry: age, bytes, count or stale. Else empty."""


@dataclass(frozen=True)
class Newest:
    """Of the server: what an update is measured against."""

    lineage: str
    version: int
    max_staleness: int
    """Versions; -1 if the server has not said."""


def useless(
    waiting: Sequence[Waiting], bounds: Config, newest: Newest | None
) -> list[tuple[Waiting, str]]:
    """Which have to go and why; `waiting` is oldest first, and so is this."""
    gone = {w.name: "age" for w in waiting if w.age_s > bounds.max_age_s}
    if newest is not None and newest.max_staleness >= 0:
        oldest_base = newest.version - newest.max_staleness
        for w in waiting:
            if w.lineage == newest.lineage and w.base_version < oldest_base:
                gone.setdefault(w.name, "stale")
    left = [w for w in waiting if w.name not in gone]
    too_many = max(0, len(left) - bounds.max_updates)
    gone.update({w.name: "count" for w in left[:too_many]})
    left = left[too_many:]
    num_bytes = sum(w.num_bytes for w in left)
    for w in left:
        if num_bytes <= bounds.max_bytes:
            break
        gone[w.name] = "bytes"
        num_bytes -= w.num_bytes
    return [(w, gone[w.name]) for w in waiting if w.name in gone]


class Outbox:
    """SQLite (WAL, synchronous=FULL): what `put` returned from survives a power cut.

    One thread uses it. Every method raises OutboxError if the disk is full, read-only or broken, and has
    then changed nothing. `now` gives monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        bounds: Config | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.bounds, self.now = path, bounds or Config(), now
        self.db = self._opened()
        self.began_s = now()
        self.lived_before_s = self._one("SELECT seconds FROM lived") or 0.0
        self.held_sha256 = self._one("SELECT sha256 FROM held")
        self.num_waiting = self._one("SELECT COUNT(*) FROM produced WHERE verdict IS NULL")
        self.ends = self._ends()
        """How many ended how since the file was made, as {"accepted": 12, "expired age": 1}."""

    def _opened(self) -> sqlite3.Connection:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connected()
        except sqlite3.OperationalError as failed:
            raise self._error(failed) from failed
        except sqlite3.DatabaseError as damaged:
            # Nobody is there to mend it, and it must not keep the vehicle from learning on.
            log.error("outbox %s is DAMAGED (%s): set aside, begun anew", self.path, damaged)
            with self._errors():
                for ending in ("", "-wal", "-shm"):
                    part = self.path.with_name(self.path.name + ending)
                    if part.exists():
                        part.replace(self.path.with_name(f"{self.path.name}.damaged{ending}"))
                return self._connected()

    def _connected(self) -> sqlite3.Connection:
        """Raises sqlite3.DatabaseError, of which OperationalError if the disk is to blame."""
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            db.executescript(SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    @property
    def lived_s(self) -> float:
        """Seconds that agents ran on this file."""
        return self.lived_before_s + self.now() - self.began_s

    def put(
        self,
        update: Update,
        frame: bytes,
        *,
        residual: np.ndarray | None = None,
        memory: Memory | None = None,
        held: Held | None = None,
    ) -> None:
        """Keep an update's frame and, if given, what training goes on from after it.

        `residual` is float32 [P] of the update's layout, `held` the version it was trained from.
        """
        row = (update.boot, update.sequence, update.lineage, update.base_version)
        with self._together():
            self.db.execute(
                "INSERT INTO produced (boot, sequence, lineage, base_version, made_s, num_bytes, frame)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, self.lived_s, len(frame), frame),
            )
            self._set_residual(update.layout, residual)
            if memory is not None:
                packed = msgspec.msgpack.encode(memory)
                self.db.execute("INSERT OR REPLACE INTO memory VALUES (1, ?)", (packed,))
            if held is not None and held.sha256 != self.held_sha256:
                vector = held.vector.astype("<f4", copy=False).tobytes()
                self.db.execute(
                    "INSERT OR REPLACE INTO held VALUES (1, ?, ?, ?, ?, ?)",
                    (update.layout, held.lineage, held.version, held.sha256, vector),
                )
        self.num_waiting += 1
        if held is not None:
            self.held_sha256 = held.sha256

    def resolve(
        self,
        boot: str,
        sequence: int,
        verdict: Verdict,
        reason: str = "",
        *,
        layout: bytes = b"",
        residual: np.ndarray | None = None,
    ) -> bool:
        """Put on record how an update ended, and drop its frame.

        `residual` is what its return makes of the residual. False, and all as it was, if it does not
        wait (a repeated receipt).
        """
        with self._together():
            done = self.db.execute(
                "UPDATE produced SET verdict = ?, reason = ?, frame = NULL"
                " WHERE boot = ? AND sequence = ? AND verdict IS NULL",
                (verdict, reason, boot, sequence),
            )
            if done.rowcount:
                self.db.execute(
                    "INSERT INTO ends VALUES (?, ?, 1)"
                    " ON CONFLICT (verdict, reason) DO UPDATE SET number = number + 1",
                    (verdict, reason),
                )
                self._set_residual(layout, residual)
                self._trim()
        if done.rowcount:
            self.num_waiting -= 1
            end = f"{verdict} {reason}".rstrip()
            self.ends[end] = self.ends.get(end, 0) + 1
        return done.rowcount > 0

    def _trim(self) -> None:
        self.db.execute(
            "DELETE FROM produced WHERE verdict IS NOT NULL AND id <= (SELECT id FROM produced"
            " WHERE verdict IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (self.bounds.max_record,),
        )

    def useless(self, newest: Newest | None) -> list[tuple[Waiting, str]]:
        """What has to go by now, and why, oldest first."""
        return useless(self.waiting(), self.bounds, newest)

    def waiting(self) -> list[Waiting]:
        """Oldest first."""
        rows = self._all(
            "SELECT boot, sequence, lineage, base_version, num_bytes, ? - made_s FROM produced"
            " WHERE verdict IS NULL ORDER BY id",
            self.lived_s,
        )
        return [Waiting(*row) for row in rows]

    def frame(self, boot: str, sequence: int) -> bytes | None:
        """None if it does not wait."""
        return self._one(
            "SELECT frame FROM produced WHERE boot = ? AND sequence = ?", boot, sequence
        )

    def __len__(self) -> int:
        return self.num_waiting

    def produced(self, after: int = 0) -> list[Produced]:
        """The record past the line of this id, in the order of production.

        What waits is on it, and the last `max_record` of known end.
        """
        rows = self._all(
            "SELECT id, boot, sequence, verdict, COALESCE(reason, '') FROM produced"
            " WHERE id > ? ORDER BY id",
            after,
        )
        return [Produced(*row) for row in rows]

    def _ends(self) -> dict[str, int]:
        rows = self._all("SELECT verdict, reason, number FROM ends ORDER BY verdict, reason")
        return {f"{verdict} {reason}".rstrip(): number for verdict, reason, number in rows}

    def residual(self, layout: bytes) -> np.ndarray | None:
        """float32 [P] as it was left, or None if there is none for this layout."""
        found = self._one("SELECT vector FROM residual WHERE layout = ?", layout)
        return None if found is None else np.frombuffer(found, "<f4").astype(np.float32)

    def memory(self) -> Memory:
        """As it was left."""
        packed = self._one("SELECT packed FROM memory")
        return Memory() if packed is None else msgspec.msgpack.decode(packed, type=Memory)

    def held(self, layout: bytes) -> Held | None:
        """The version of this layout that the newest update was trained from, if its bits are still those."""
        for lineage, version, sha256, stored in self._all(
            "SELECT lineage, version, sha256, vector FROM held WHERE layout = ?", layout
        ):
            vector = np.frombuffer(stored, "<f4").astype(np.float32)
            if digest(vector) == sha256:
                return Held(lineage, version, sha256, vector)
        return None

    def _set_residual(self, layout: bytes, residual: np.ndarray | None) -> None:
        if residual is not None:
            self.db.execute(
                "INSERT OR REPLACE INTO residual VALUES (1, ?, ?)",
                (layout, residual.astype("<f4", copy=False).tobytes()),
            )

    def _all(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._errors():
            return self.db.execute(query, parameters).fetchall()

    def _one(self, query: str, *parameters: object) -> Any:
        rows = self._all(query, *parameters)
        return rows[0][0] if rows else None

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All of it, or nothing."""
        with self._errors():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("INSERT OR REPLACE INTO lived VALUES (1, ?)", (self.lived_s,))
                self.db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors, such as a full disk.
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except (sqlite3.DatabaseError, OSError) as failed:
            raise self._error(failed) from failed

    def _error(self, failed: Exception) -> OutboxError:
        return OutboxError(
            f"outbox {self.path}: {failed} (is the disk full, read-only or worn out?)"
        )

    def close(self) -> None:
        self.db.close()
