"""Updates on their way, on disk until the server says what became of them. Knows no network.

Beside them lies the residual of error feedback: it changes in the same transaction as the update
that it belongs to, so that after a power cut no part of what was learned is there twice or not at all.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Waiting:
    boot: str
    sequence: int
    frame: bytes


class Outbox:
    """SQLite (WAL, synchronous=FULL): what `put` returned from survives a power cut.

    One thread uses it. Raises sqlite3.OperationalError if the disk is full or read-only.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS updates ("
            "id INTEGER PRIMARY KEY, boot TEXT, sequence INTEGER, frame BLOB, "
            "UNIQUE (boot, sequence))"
        )
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS residual ("
            "one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, vector BLOB)"
        )

    def put(
        self,
        boot: str,
        sequence: int,
        frame: bytes,
        *,
        layout: bytes = b"",
        residual: np.ndarray | None = None,
    ) -> None:
        """Keep a frame and, if given, what it left over: float32 [P] of this layout's fingerprint."""
        with self._together():
            self.db.execute(
                "INSERT INTO updates (boot, sequence, frame) VALUES (?, ?, ?)",
                (boot, sequence, frame),
            )
            self._set_residual(layout, residual)

    def waiting(self) -> list[Waiting]:
        """Oldest first."""
        rows = self.db.execute("SELECT boot, sequence, frame FROM updates ORDER BY id")
        return [Waiting(*row) for row in rows]

    def frame(self, boot: str, sequence: int) -> bytes | None:
        found = self.db.execute(
            "SELECT frame FROM updates WHERE boot = ? AND sequence = ?", (boot, sequence)
        ).fetchone()
        return None if found is None else found[0]

    def __len__(self) -> int:
        return self.db.execute("SELECT COUNT(*) FROM updates").fetchone()[0]

    def forget(
        self, boot: str, sequence: int, *, layout: bytes = b"", residual: np.ndarray | None = None
    ) -> bool:
        """Drop one for which a receipt came; `residual` is what its return makes of the residual.

        False, and the residual as it was, if it was not there (a repeated receipt).
        """
        with self._together():
            done = self.db.execute(
                "DELETE FROM updates WHERE boot = ? AND sequence = ?", (boot, sequence)
            )
            if done.rowcount:
                self._set_residual(layout, residual)
        return done.rowcount > 0

    def residual(self, layout: bytes) -> np.ndarray | None:
        """float32 [P] as it was left, or None if there is none for this layout."""
        found = self.db.execute(
            "SELECT vector FROM residual WHERE layout = ?", (layout,)
        ).fetchone()
        return None if found is None else np.frombuffer(found[0], "<f4").astype(np.float32)

    def _set_residual(self, layout: bytes, residual: np.ndarray | None) -> None:
        if residual is not None:
            self.db.execute(
                "INSERT OR REPLACE INTO residual VALUES (1, ?, ?)",
                (layout, residual.astype("<f4", copy=False).tobytes()),
            )

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All of it, or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def close(self) -> None:
        self.db.close()
