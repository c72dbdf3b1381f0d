"""Reads the state folder of a server or of a simulated run: journal, events and registry."""

import contextlib
import json
import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetfl.events.event_log import EventReader, parts
from fleetfl.plain_files import opened
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Update
from fleetfl.registry.registry import Registry
from fleetfl.registry.release_file import ReleaseFileError, read_record
from fleetfl.storage import journal_file
from fleetfl.storage.journal import path_in
from fleetfl.storage.sqlite_copy import copied
from fleetfl.trace import Note, TraceError

log = logging.getLogger(__name__)

JUDGED = ("accepted", "duplicate", "refused")
NOT_SHOWN = ("time", "event", "vehicle", "boot", "sequence")
NAMED = re.compile(rb'"vehicle": ("(?:[^"\\]|\\.)*")')


def opened_server(folder: Path) -> "ServerFolder | None":
    """Reader of a server's state folder; None if the folder has nothing of a server."""
    server = ServerFolder(folder)
    is_one = path_in(folder).is_file() or server.registry.folder.is_dir() or parts(server.events)
    return server if is_one else None


class ServerFolder:
    """Reader of a server's state folder by copies and whole lines, which a running server does not notice."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.events = folder, folder / "events.jsonl"
        self.registry = Registry.of_server(folder)

    def vehicles(self) -> list[str]:
        """Names of the vehicles that the journal or the events know."""
        found = {row[0] for row in self._rows("SELECT DISTINCT vehicle FROM updates")} - {""}
        for part in parts(self.events):
            with contextlib.suppress(OSError), opened(part) as file:
                for name in {match for line in file for match in NAMED.findall(line)}:
                    found.add(json.loads(name))
        return sorted(found)

    def notes(self, vehicle: str) -> list[Note]:
        """All facts about the vehicle's updates from journal, events and registry."""
        return [*self._kept(vehicle), *self._judged(vehicle), *self._released(vehicle)]

    def _kept(self, vehicle: str) -> Iterator[Note]:
        query = (
            "SELECT boot, sequence, row, kept_at, CAST(frame AS BLOB) FROM updates"
            " WHERE vehicle = ? ORDER BY row"
        )
        for boot, sequence, row, kept_at, frame in self._rows(query, vehicle):
            about = {"row": row, "bytes": len(frame), **_content(frame)}
            yield Note((boot, sequence), "journal", "kept", str(self.folder), kept_at, about)

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        path = path_in(self.folder)
        if not path.is_file():
            return []
        try:
            with copied(path) as copy, contextlib.closing(journal_file.connected(copy)) as reader:
                return reader.execute(query, values).fetchall()
        except sqlite3.Error as damaged:
            raise TraceError(f"journal {path} cannot be read: {damaged}") from damaged

    def _judged(self, vehicle: str) -> Iterator[Note]:
        """Facts from the event log, with the release that an accepted update went into: the next one
        logged.
        """
        name = json.dumps(vehicle).encode()
        reader = EventReader(self.events, only=lambda line: name in line or b'"released"' in line)
        counted: list[tuple[str, int]] = []
        for event in reader.read():
            kind, at_s = event["event"], event.get("time")
            if kind == "released":
                for each in counted:
                    about = {"release": event["version"], "known_by": "the order of events"}
                    yield Note(each, "events", "part of", str(self.folder), at_s, about)
                counted = []
            elif kind in JUDGED and event.get("vehicle") == vehicle:
                each = (event["boot"], event["sequence"])
                about = {key: value for key, value in event.items() if key not in NOT_SHOWN}
                yield Note(each, "events", kind, str(self.folder), at_s, about)
                counted += [each] if kind == "accepted" else []

    def _released(self, vehicle: str) -> Iterator[Note]:
        for generation in self.registry.generations():
            for path in self.registry.paths(generation).values():
                try:
                    record = read_record(path)
                except ReleaseFileError as damaged:
                    log.warning("%s", damaged)
                    continue
                for each in record.updates or ():
                    if each.vehicle == vehicle:
                        about = {
                            "release": record.name,
                            "staleness": each.staleness,
                            "num_examples": each.num_examples,
                            "num_updates": len(record.updates or ()),
                        }
                        name = (each.boot, each.sequence)
                        made_at = record.created
                        yield Note(name, "registry", "part of", str(self.folder), made_at, about)


def _content(frame: bytes) -> dict[str, Any]:
    """Fields of the update in a frame; empty for a damaged one."""
    try:
        message = wire.open_frame(frame).message
    except Exception:  # whatever a worn disk made of it
        return {}
    if not isinstance(message, Update):
        return {}
    return content_of(message)


def content_of(update: Update) -> dict[str, Any]:
    """Fields of an update that a trace shows."""
    return {
        "base": update.base_version,
        "generation": update.generation,
        "codec": update.codec,
        "num_examples": update.num_examples,
        "loss": update.loss,
        "captured_from": update.captured_from,
        "captured_to": update.captured_to,
    }
