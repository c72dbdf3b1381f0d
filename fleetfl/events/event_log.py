"""The event log: lines of JSON that people and reports read. One file has any number of writers.

No part of the server goes on from what the log says. schema.py declares what is in it.
"""

import contextlib
import fcntl
import glob
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pydantic import Field

from fleetfl.config import Section
from fleetfl.events.schema import MISSING, OPENED, SCHEMA, renamed
from fleetfl.plain_files import opened

log = logging.getLogger(__name__)

Watch = Callable[[str, Mapping[str, Any]], None]
"""Callback that is given the name and the fields of each event."""


class Config(Section):
    """Settings of the event log: how much of it stays on disk."""

    max_bytes: int = Field(default=64 * 2**20, ge=2**12)
    """Size, bytes, at which a file is full and the next line begins another one."""
    older_files: int = Field(default=4, ge=0)
    """Number of full files that stay, as events.jsonl.1 (the newest of them) and on. More keep a longer
    history."""
    status_s: float = Field(default=300.0, ge=0)
    """Seconds after which a vehicle's status is written though only its counters changed. A change of state,
    boot or note is written at once, and of its version after 30 s; 0 writes each status."""


class EventLog:
    """Appends {"time": UTC seconds, "event": name, ...} lines, and tells each to `watch` as well.

    Each line is one write to a file opened for appending, so processes on one machine may share it. A file
    that is full, of those with `bounds`, gets a number, as does one that somebody moves or deletes: all go on
    in a new one.
    A disk that takes no lines (full, read-only) costs lines and stops nothing: the first line after it
    says how many are missing. The first line of a file says which schema its lines have.
    """

    check: ClassVar[Watch | None] = None
    """Callback before each event is written that raises for an undeclared one; tests set it."""

    def __init__(
        self,
        path: Path,
        *,
        bounds: Config | None = None,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path, self.bounds, self.watch, self.clock = path, bounds, watch, clock
        self.file: int | None = None
        self.missing = 0
        """Number of lines lost since the last successful write."""
        self.is_torn = False

    def write(self, event: str, **fields: Any) -> None:
        if EventLog.check is not None:
            EventLog.check(event, fields)
        if self.watch is not None:
            self.watch(event, fields)
        if self.missing and self._append(MISSING, {"lines": self.missing}):
            log.error("%d events are missing in %s", self.missing, self.path)
            self.missing = 0
        if self.missing or not self._append(event, fields):
            self.missing += 1

    def _append(self, event: str, fields: Mapping[str, Any]) -> bool:
        """Append a line; says whether the whole of it is in the file."""
        try:
            file = self._opened()
            line = b"\n" * self.is_torn + self._line(event, fields)
            written = os.write(file, line)
        except OSError as failed:
            if not self.missing:
                log.error("events are not written to %s: %s", self.path, failed)
            return False
        self.is_torn = written < len(line)
        if self.bounds is not None and os.fstat(file).st_size >= self.bounds.max_bytes:
            self._number(file, self.bounds)
        return not self.is_torn

    def _line(self, event: str, fields: Mapping[str, Any]) -> bytes:
        about = {"time": round(self.clock(), 3), "event": event, **fields}
        return json.dumps(about).encode() + b"\n"

    def _opened(self) -> int:
        """Descriptor of the file now at the path, opened again if it was moved, deleted or numbered."""
        if self.file is None or _identity(self.path) != _identity(self.file):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(self.path, flags, 0o644)
            # Not before: a new file would get the number by which readers know the old one.
            self.close()
            self.file, self.is_torn = file, False
            self._begin(file)
        return self.file

    def _begin(self, file: int) -> None:
        """Write the first line of a new file before any other, whoever else opens it at the same time."""
        if os.fstat(file).st_size:
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if not os.fstat(file).st_size:
                line = self._line(OPENED, {"schema": SCHEMA})
                self.is_torn = os.write(file, line) < len(line)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _number(self, file: int, bounds: Config) -> None:
        """Rename a full file to a numbered one; of several writers that find it full, one does so."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _identity(self.path) != _identity(file):
                return
            for number, path in reversed([*enumerate(parts(self.path)[::-1], start=1)]):
                if number > bounds.older_files:
                    path.unlink()
                else:
                    path.replace(_part(self.path, number))
        except BlockingIOError:
            return
        except OSError as failed:
            log.error("%s is full, and written on until the next start: %s", self.path, failed)
            self.bounds = None
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


def parts(path: Path) -> list[Path]:
    """Existing files of the event log at `path`, the oldest first."""
    numbered = [
        (int(number), part)
        for part in path.parent.glob(f"{glob.escape(path.name)}.*")
        if (number := part.name.removeprefix(f"{path.name}.")).isdecimal() and part.is_file()
    ]
    older = [part for _, part in sorted(numbered, reverse=True)]
    return [*older, path] if path.is_file() else older


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Device and inode, equal for two paths or descriptors of one file; None if there is none."""
    try:
        about = os.stat(file)
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino


class EventReader:
    """Reads an event log piece by piece while others write it, also where it goes on in other files.

    It begins with the oldest of them, or of the newest `begin_with`. Whatever is renamed meanwhile, no line
    is read twice, and none is missed unless its file was deleted before. Lines for which `only` is false are
    passed over before they are parsed.
    """

    def __init__(
        self,
        path: Path,
        *,
        begin_with: int | None = None,
        only: Callable[[bytes], bool] = lambda line: True,
    ) -> None:
        self.path, self.begin_with, self.only = path, begin_with, only
        self.read_to: dict[_Which, int] = {}
        """Offset, bytes, read so far in each file met. None is forgotten: a writer may still append to a file
        after it got its number, and a file that is being renamed is not seen for a moment."""
        self.schema = 0
        """Largest schema that a file read so far states; 0 if none states one."""

    def read(self) -> list[dict[str, Any]]:
        """The events since the last call; a line still being written waits for the next."""
        events = []
        with contextlib.ExitStack() as stack:
            files = {_which(file): file for file in self._opened(stack)}
            if self.begin_with is not None:
                for which in list(files)[: -self.begin_with]:
                    self.read_to[which] = files[which].seek(0, os.SEEK_END)
                self.begin_with = None
            for which, file in files.items():
                if len(which[1]) == HEAD_BYTES:  # else it has no line yet, and another head soon
                    events += self._read(which, file)
        return events

    def _opened(self, stack: contextlib.ExitStack) -> list[BinaryIO]:
        """The files, the oldest first."""
        for _ in range(TRIES):
            files = []
            try:
                for part in parts(self.path):
                    files.append(stack.enter_context(opened(part)))
                return files
            except FileNotFoundError:  # they are getting their next numbers
                stack.close()
        return []

    def _read(self, which: "_Which", file: BinaryIO) -> list[dict[str, Any]]:
        begin = self.read_to.get(which, 0)
        if file.seek(0, os.SEEK_END) < begin:
            begin = 0  # somebody has emptied it
        file.seek(begin)
        new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read_to[which] = begin + len(whole)
        lines = filter(self.only, whole.splitlines())
        events = [event for line in lines if (event := _parsed(line)) is not None]
        for event in events:
            if event["event"] == OPENED:
                self._note_schema(event.get("schema"))
        return [event for event in events if event["event"] != OPENED]

    def _note_schema(self, schema: object) -> None:
        if isinstance(schema, int) and schema > self.schema:
            self.schema = schema
            if schema > SCHEMA:
                log.warning(
                    "%s is of schema %d, and this version of fleetfl knows none above %d",
                    self.path,
                    schema,
                    SCHEMA,
                )


TRIES = 20
"""Number of tries to open all files of a log while they are being renamed."""
_Which = tuple[int, bytes]
HEAD_BYTES = 32
"""Bytes at the start of a file that identify it; no event is shorter, and they hold its time."""


def _which(file: BinaryIO) -> _Which:
    """Identity of a file: inode and first bytes, since inode numbers are used again after a deletion."""
    return os.fstat(file.fileno()).st_ino, file.read(HEAD_BYTES)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None for a line cut off by a full disk or written by another program."""
    try:
        event = json.loads(line)
    except Exception:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    return renamed(event)
