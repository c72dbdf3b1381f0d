"""A vehicle's state folder, for `fleetfl trace`: its outbox and the record of how updates ended."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fleetfl.plain_files import content_of as bytes_of
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Update
from fleetfl.storage.sqlite_copy import copied
from fleetfl.trace import Note, TraceError
from fleetfl.trace.server_folder import content_of
from vehicle_agent import outbox_file

OUTBOX = "outbox.db"


def opened_vehicle(folder: Path) -> "VehicleFolder | None":
    """None if the folder has no outbox."""
    return VehicleFolder(folder) if (folder / OUTBOX).is_file() else None


class VehicleFolder:
    """Reads a copy of the outbox, so a running agent does not notice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def vehicles(self) -> list[str]:
        """The vehicle's own name, where the session's name or a waiting update tells it."""
        names = set()
        with contextlib.suppress(OSError):
            session = bytes_of(self.folder / "session", max_bytes=4096).decode("utf-8", "replace")
            names = {session.strip().rpartition(":")[2]} - {""}
        if not names:
            with self._copy() as db:
                frames = db.execute("SELECT frame FROM waiting ORDER BY id DESC LIMIT 1").fetchall()
            names = {update.vehicle for (frame,) in frames if (update := _update(frame))}
        return sorted(names)

    def notes(self, vehicle: str) -> list[Note]:
        """As `Side.notes`: the vehicle's record, then what waits. Dates are not known to an outbox."""
        names = self.vehicles()
        if names and vehicle not in names:
            return []
        with self._copy() as db:
            return [*self._ended(db), *self._waiting(db)]

    def _ended(self, db: sqlite3.Connection) -> Iterator[Note]:
        for boot, sequence, generation, base, num_bytes, verdict, reason in db.execute(
            "SELECT boot, sequence, lineage, base_version, num_bytes, verdict, reason FROM record"
            " ORDER BY id"
        ):
            about = {"base": base, "generation": generation, "bytes": num_bytes}
            about |= {"reason": reason} if reason else {}
            yield Note((boot, sequence), "outbox", verdict, str(self.folder), None, about)

    def _waiting(self, db: sqlite3.Connection) -> Iterator[Note]:
        packed = db.execute("SELECT value FROM state WHERE name = 'lived'").fetchone()
        lived_s = 0.0 if packed is None else float(msgspec.msgpack.decode(packed[0]))
        for boot, sequence, generation, base, num_bytes, made_s, frame in db.execute(
            "SELECT boot, sequence, lineage, base_version, num_bytes, made_s, frame FROM waiting"
            " ORDER BY id"
        ):
            update, age_s = _update(frame), max(0.0, round(lived_s - made_s, 1))
            about: dict[str, Any] = {"base": base, "generation": generation, "bytes": num_bytes}
            about |= {} if update is None else content_of(update)
            about["age_s"] = age_s
            yield Note((boot, sequence), "outbox", "waiting", str(self.folder), None, about)

    @contextlib.contextmanager
    def _copy(self) -> Iterator[sqlite3.Connection]:
        """The outbox, brought up to date if an older version wrote it. Raises TraceError or OSError."""
        path = self.folder / OUTBOX
        try:
            with copied(path) as copy:
                db = outbox_file.connected(copy, watched=False)
                try:
                    yield db
                finally:
                    db.close()
        except (sqlite3.Error, msgspec.DecodeError) as damaged:
            raise TraceError(f"outbox {path} cannot be read: {damaged}") from damaged


def _update(frame: bytes) -> Update | None:
    """None for what is no frame that this version reads."""
    try:
        message = wire.open_frame(frame).message
    except Exception:  # whatever a worn disk made of it
        return None
    return message if isinstance(message, Update) else None
