"""Updates on their way, on disk until it is known what became of them. Knows no network.

The same file is the vehicle's record of what it produced and how each update ended, and has what training
goes on from after a restart: the residual of error feedback, the trainer's memory and the version held. All
of it changes in the transaction of the update it belongs to, so that after a power cut no part of what was
learned is there twice or not at all.
"""

import gc
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from pydantic import Field

from fleetfl import FleetflError
from fleetfl.config import Section
from fleetfl.protocol.messages import Update
from fleetfl.releases.generations import BEFORE_ALL, Order, number_of
from fleetfl.releases.versions import CurrentRelease, moved, unpacked
from fleetfl.vectors import Layout, digest
from vehicle_agent import outbox_file
from vehicle_agent import residual as residuals

log = logging.getLogger(__name__)

T = TypeVar("T")
Verdict = Literal["accepted", "duplicate", "refused", "expired"]
Name = tuple[str, int]
"""(boot, sequence)"""

MAX_END, MOST_ENDS = 64, 60
"""Characters of how an update ended, and number of such ends: a status has room for no more."""
OTHER = "other"
"""The reason that is counted in place of one beyond them."""


class OutboxError(FleetflError, OSError):
    """The outbox cannot be written or read: a full, read-only or broken disk."""


class Config(Section):
    """What an outbox may hold. The oldest give way, and are counted by reason."""

    max_age_s: float = Field(default=21 * 86_400.0, gt=0)
    """Maximum age of an update without a receipt, in seconds of agent uptime (monotonic clock)."""
    max_bytes: int = Field(default=256 * 2**20, ge=2**10)
    """Bytes of all frames that wait."""
    max_updates: int = Field(default=1_000, ge=1)
    """Updates that wait at most. Training rests at `agent.max_waiting`; with that above this it goes on in a
    long tunnel, and what an old update held goes into a new one."""
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
    classes: bytes = b""
    """32 bytes that name those classes in their order; empty from an older version, which noted none."""

    def counts_by(self, classes: bytes) -> list[float]:
        """The trainer's counts, if they are of these classes (`Layout.means`); else none."""
        return self.class_counts if self.classes in (b"", classes) else []


@dataclass(frozen=True)
class Waiting:
    boot: str
    sequence: int
    generation: str
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

    generation: str
    version: int
    max_staleness: int
    """Versions; -1 if the server has not said."""


def expired_updates(
    waiting: Sequence[Waiting], bounds: Config, newest: Newest | None
) -> list[tuple[Waiting, str]]:
    """Which have to go and why; `waiting` is oldest first, and so is this."""
    gone = {w.name: "age" for w in waiting if w.age_s > bounds.max_age_s}
    if newest is not None and newest.max_staleness >= 0:
        oldest_base = newest.version - newest.max_staleness
        for w in waiting:
            if w.generation == newest.generation and w.base_version < oldest_base:
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


def counted(outcomes: dict[str, int], verdict: Verdict, reason: str) -> dict[str, int]:
    """`ends` with one more; no more kinds of them, and none longer, than a status can say."""
    end = f"{verdict} {reason}".rstrip()[:MAX_END]
    if end not in outcomes and len(outcomes) >= MOST_ENDS:
        end = f"{verdict} {OTHER}"
    return {**outcomes, end: outcomes.get(end, 0) + 1}


@dataclass(frozen=True)
class Trail:
    """How the version held is kept: a whole one, and steps from there to this SHA-256."""

    generation: str
    version: int
    sha256: bytes
    num_steps: int
    num_bytes: int
    """Of the steps' bodies."""


class Outbox:
    """SQLite (WAL, synchronous=FULL): what `put` returned from survives a power cut.

    One thread uses it, and no other process may read the file meanwhile unless it is `watched`. Every
    method raises OutboxError if the disk is full, read-only or broken, and has then changed nothing.
    `now` gives monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        bounds: Config | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        watched: bool = False,
    ) -> None:
        self.path, self.bounds, self.now, self.watched = path, bounds or Config(), now, watched
        self.db = self._opened()
        self.began_s = now()
        self.lived_before_s = self._state("lived", 0.0)
        self.num_produced = max(
            self._state("produced", 0), self._one("SELECT COALESCE(MAX(id), 0) FROM produced")
        )
        """Over all boots; the last one's id."""
        self.num_waiting = self._one("SELECT COUNT(*) FROM waiting")
        self.outcomes: dict[str, int] = self._state("ends", {})
        """How many ended how since the file was made, as {"accepted": 12, "expired age": 1}."""
        self.trail = self._kept_trail()

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
                return outbox_file.connected(self.path, watched=self.watched)

    def _connected(self) -> sqlite3.Connection:
        try:
            return outbox_file.connected(self.path, watched=self.watched)
        except sqlite3.OperationalError:
            # One of this process that nobody refers to has its lock until the collector finds it.
            gc.collect()
            return outbox_file.connected(self.path, watched=self.watched)

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
        held: CurrentRelease | None = None,
    ) -> None:
        """Keep an update's frame and, if given, what training goes on from after it.

        `residual` is float32 [P] of the update's layout, `held` the version it was trained from.
        """
        made = (update.boot, update.sequence, update.generation, update.base_version, self.lived_s)
        number, trail = self.num_produced + 1, self.trail
        with self._together():
            self.db.execute(
                "INSERT INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, *made, len(frame), frame),
            )
            self._set_state("produced", number)
            self._set_residual(update.layout, residual)
            if memory is not None:
                self._set_state("memory", memory)
            if held is not None:
                trail = self._set_held(update.layout, held)
        self.num_produced, self.trail = number, trail
        self.num_waiting += 1

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
        name, outcomes = (boot, sequence), self.outcomes
        if self._one("SELECT 1 FROM waiting WHERE boot = ? AND sequence = ?", *name) is None:
            return False
        with self._together():
            self.db.execute(
                "INSERT INTO record SELECT id, boot, sequence, lineage, base_version, made_s, num_bytes,"
                " ?, ? FROM waiting WHERE boot = ? AND sequence = ?",
                (verdict, reason, *name),
            )
            self.db.execute("DELETE FROM waiting WHERE boot = ? AND sequence = ?", name)
            outcomes = counted(self.outcomes, verdict, reason)
            self._set_state("ends", outcomes)
            self._set_residual(layout, residual)
            self.db.execute(
                "DELETE FROM record WHERE id <="
                " (SELECT id FROM record ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (self.bounds.max_record,),
            )
        self.num_waiting -= 1
        self.outcomes = outcomes
        return True

    def expired_updates(self, newest: Newest | None) -> list[tuple[Waiting, str]]:
        """What has to go by now, and why, oldest first."""
        return expired_updates(self.waiting(), self.bounds, newest)

    def waiting(self) -> list[Waiting]:
        """Oldest first."""
        rows = self._all(
            "SELECT boot, sequence, lineage, base_version, num_bytes, ? - made_s FROM waiting"
            " ORDER BY id",
            self.lived_s,
        )
        return [Waiting(*row) for row in rows]

    def frame(self, boot: str, sequence: int) -> bytes | None:
        """None if it does not wait."""
        return self._one(
            "SELECT frame FROM waiting WHERE boot = ? AND sequence = ?", boot, sequence
        )

    def __len__(self) -> int:
        return self.num_waiting

    def produced(self, after: int = 0) -> list[Produced]:
        """The record past the line of this id, in the order of production.

        What waits is on it, and the last `max_record` of known end.
        """
        rows = self._all(
            "SELECT id, boot, sequence, verdict, reason FROM produced WHERE id > ? ORDER BY id",
            after,
        )
        return [Produced(*row) for row in rows]

    def residual(self, layout: bytes) -> np.ndarray | None:
        """float32 [P] as it was left, or None if there is none for this layout."""
        found = self._one("SELECT packed FROM residual WHERE layout = ?", layout)
        try:
            left = None if found is None else residuals.unpacked(found)
            return None if left is None or not np.isfinite(left).all() else left
        except Exception as damaged:  # whatever a worn disk made of it
            log.error("outbox %s: what packing left over is lost: %s", self.path, damaged)
            return None

    def memory(self) -> Memory:
        """As it was left."""
        return self._state("memory", Memory())

    def held(self, layout: Layout) -> CurrentRelease | None:
        """The version of this layout that the newest update was trained from, if its bits are still those."""
        found = self._all(
            "SELECT lineage, version, sha256, vector FROM held JOIN whole WHERE layout = ?",
            layout.fingerprint,
        )
        for generation, version, sha256, whole in found:
            steps = self._all("SELECT codec, body FROM steps ORDER BY number")
            try:
                vector = np.frombuffer(whole, "<f4").astype(np.float32)
                for codec, body in steps:
                    vector = moved(vector, unpacked(codec, body, layout))
                if digest(vector) == sha256:
                    return CurrentRelease(generation, int(version), sha256, vector)
            except Exception as damaged:  # as above
                log.error("outbox %s: version %s is lost: %s", self.path, version, damaged)
                return None
        return None

    def _kept_trail(self) -> Trail:
        held = self._all("SELECT lineage, version, sha256 FROM held")
        steps = self._all("SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM steps")
        generation, version, sha256 = held[0] if held else ("", -1, b"")
        return Trail(generation, version, sha256, *steps[0])

    def _set_held(self, layout: bytes, held: CurrentRelease) -> Trail:
        """Its difference to what is kept, if it is known by which steps it came; else whole."""
        about = (held.generation, held.version, held.sha256)
        if about == (self.trail.generation, self.trail.version, self.trail.sha256):
            return self.trail
        self.db.execute("INSERT OR REPLACE INTO held VALUES (1, ?, ?, ?, ?)", (layout, *about))
        steps = held.since(self.trail.sha256)
        num_bytes = self.trail.num_bytes + sum(len(step.body) for step in steps or ())
        # A start reads them all again, so they may be as many bytes as what they spare.
        if steps is None or num_bytes > held.vector.nbytes:
            whole = held.vector.astype("<f4", copy=False).tobytes()
            self.db.execute("DELETE FROM steps")
            self.db.execute("INSERT OR REPLACE INTO whole VALUES (1, ?)", (whole,))
            return Trail(*about, 0, 0)
        numbered = enumerate(steps, start=self.trail.num_steps)
        self.db.executemany(
            "INSERT INTO steps VALUES (?, ?, ?)",
            [(number, step.codec, step.body) for number, step in numbered],
        )
        return Trail(*about, self.trail.num_steps + len(steps), num_bytes)

    def floor(self) -> Order:
        """Where the newest version stands that an update was trained from, whatever its layout was."""
        for generation, version in self._all("SELECT lineage, version FROM held"):
            return number_of(generation), version
        return BEFORE_ALL

    def _set_residual(self, layout: bytes, residual: np.ndarray | None) -> None:
        if residual is not None:
            # Not REPLACE, which looks for other pages before it frees these.
            self.db.execute("DELETE FROM residual")
            packed = residuals.packed(residual)
            self.db.execute("INSERT INTO residual VALUES (1, ?, ?)", (layout, packed))

    def _state(self, name: str, first: T) -> T:
        """As it was left; `first` if it never was, or if what is there is no such thing."""
        packed = self._one("SELECT value FROM state WHERE name = ?", name)
        if packed is None:
            return first
        try:
            return msgspec.msgpack.decode(packed, type=type(first))
        except Exception as damaged:
            log.error("outbox %s: %r is lost: %s", self.path, name, damaged)
            return first

    def _set_state(self, name: str, value: object) -> None:
        packed = msgspec.msgpack.encode(value)
        self.db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, packed))

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
                self._set_state("lived", self.lived_s)
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
