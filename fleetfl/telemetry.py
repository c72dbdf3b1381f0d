"""What happened, as lines of JSON that people and reports read. One file, any number of writers."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class EventLog:
    """Appends {"time": UTC seconds, "event": name, ...} lines.

    Each line is one write to a file opened for appending, so processes on one machine may share it.
    A full disk costs lines, and is no reason to stop what they tell of.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.is_torn = False

    def write(self, event: str, **fields: Any) -> None:
        line = (
            json.dumps({"time": round(time.time(), 3), "event": event, **fields}).encode() + b"\n"
        )
        if self.is_torn:
            line = b"\n" + line
        try:
            written = os.write(self.file, line)
        except OSError as full:
            log.error("event %s is not in the log: %s", event, full)
            written = 0
        self.is_torn = written < len(line) and (written > 0 or self.is_torn)

    def close(self) -> None:
        os.close(self.file)


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
    """None for what a full disk left of a line."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def last_number(path: Path, field: str, block: int = 2**20) -> int:
    """The value of this field in the newest event that has it, 0 if none has. Reads from the end."""
    key = json.dumps(field).encode() + b": "
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
