"""What happened, as lines of JSON that people and reports read. One file, any number of writers."""

import json
import os
import time
from pathlib import Path
from typing import Any


class EventLog:
    """Appends {"time": UTC seconds, "event": name, ...} lines.

    Each line is one write to a file opened for appending, so processes on one machine may share it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields})
        os.write(self.file, line.encode() + b"\n")

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
        return [json.loads(line) for line in whole.splitlines()]
