"""What happened, as lines of JSON that people and reports read. One file, any number of writers."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Watch = Callable[[str, Mapping[str, Any]], None]
"""Hears of each event: its name and fields."""


class EventLog:
    """Appends {"time": UTC seconds, "event": name, ...} lines, and tells each to `watch` as well.

    Each line is one write to a file opened for appending, so processes on one machine may share it.
    A disk that takes none (full, read-only) costs lines, and is no reason to stop what they tell of: the
    first one after says how many are missing.
    """

    def __init__(
        self, path: Path, *, watch: Watch | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.path, self.watch, self.clock = path, watch, clock
        self.file: int | None = None
        self.missing = 0
        """Lines since the last one that was written."""
        self.is_torn = False

    def write(self, event: str, **fields: Any) -> None:
        if self.watch is not None:
            self.watch(event, fields)
        if self.missing and self._append("events_missing", {"lines": self.missing}):
            log.error("%d events are missing in %s", self.missing, self.path)
            self.missing = 0
        if self.missing or not self._append(event, fields):
            self.missing += 1

    def _append(self, event: str, fields: Mapping[str, Any]) -> bool:
        """Whether the whole line is in the file."""
        about = {"time": round(self.clock(), 3), "event": event, **fields}
        line = b"\n" * self.is_torn + json.dumps(about).encode() + b"\n"
        try:
            written = os.write(self._opened(), line)
        except OSError as failed:
            if not self.missing:
                log.error("events are not written to %s: %s", self.path, failed)
            return False
        self.is_torn = written < len(line)
        return not self.is_torn

    def _opened(self) -> int:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self.file

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


class EventReader:
    """Reads a file of events piece by piece while others write it."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0

    def read(self) -> list[dict[str, Any]]:
        """The events since the last call; a line still being written waits for the next."""
        with self.path.open("rb") as file:
            file.seek(self.at)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.at += len(whole)
        return [event for line in whole.splitlines() if (event := _parsed(line)) is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for what a full disk left of a line, or somebody else wrote there."""
    try:
        event = json.loads(line)
    except Exception:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def last_number(path: Path, field: str, block: int = 2**20) -> int:
    """The value of this field in the newest event that has it, 0 if none has. Reads from the end."""
    key = json.dumps(field).encode() + b": "
    if not path.exists():
        return 0
    with path.open("rb") as file:
        at, later = file.seek(0, os.SEEK_END), b""
        while at > 0:
            start = max(0, at - block)
            file.seek(start)
            part = file.read(at - start) + later
            if (found := part.rfind(key)) >= 0:
                digits = part[found + len(key) :].split(b",", 1)[0].rstrip(b"}\n")
                return int(digits)
            at, later = start, part[: len(key) + 32]
    return 0
