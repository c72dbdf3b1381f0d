"""Updates on their way, on disk until the server says what became of them. Knows no network."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path


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

    def put(self, boot: str, sequence: int, frame: bytes) -> None:
        self.db.execute(
            "INSERT INTO updates (boot, sequence, frame) VALUES (?, ?, ?)", (boot, sequence, frame)
        )

    def waiting(self) -> list[Waiting]:
        """Oldest first."""
        rows = self.db.execute("SELECT boot, sequence, frame FROM updates ORDER BY id")
        return [Waiting(*row) for row in rows]

    def __len__(self) -> int:
        return self.db.execute("SELECT COUNT(*) FROM updates").fetchone()[0]

    def forget(self, boot: str, sequence: int) -> bool:
        """Drop one for which a receipt came. False if it was not there (a repeated receipt)."""
        done = self.db.execute(
            "DELETE FROM updates WHERE boot = ? AND sequence = ?", (boot, sequence)
        )
        return done.rowcount > 0

    def close(self) -> None:
        self.db.close()
