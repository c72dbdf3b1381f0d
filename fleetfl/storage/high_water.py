"""A number on disk that only grows. Knows nothing of what it counts."""

import logging
import os
import struct
from pathlib import Path
from zlib import crc32

from fleetfl.plain_files import content_of

log = logging.getLogger(__name__)

MAX_BYTES = 4096
"""Largest file, bytes, that is read; a longer one holds no number."""


class HighWater:
    """A number that survives the process once `raise_to` has returned, and a loss of power if durable.

    Each write is one of 12 bytes at the file's beginning, so it is there whole or not at all. On a disk that
    takes none the number grows in memory alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = _read(path)
        """Highest number so far; 0 if there is none, or none that can be read."""
        self.is_known = path.exists()
        """Whether there was a file at the start."""
        self.file: int | None = None
        self.is_failing = False

    def raise_to(self, number: int, *, durably: bool = False) -> None:
        """Raise the number to at least `number`; `durably` returns once it is on disk, or raises OSError."""
        if number <= self.number:
            return
        try:
            self._write(number, durably)
            self.is_failing = False
        except OSError as failed:
            self.close()
            if durably:
                raise
            if not self.is_failing:
                log.error("%s is not written: %s", self.path, failed)
            self.is_failing = True
        self.number = number

    def _write(self, number: int, durably: bool) -> None:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o600)
        packed = struct.pack(">Q", number)
        os.pwrite(self.file, packed + struct.pack(">I", crc32(packed)), 0)
        if durably:
            os.fsync(self.file)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def __del__(self) -> None:
        self.close()


def _read(path: Path) -> int:
    try:
        content = content_of(path, max_bytes=MAX_BYTES)
    except FileNotFoundError:
        return 0
    except OSError as failed:
        log.error("%s cannot be read: %s", path, failed)
        return 0
    if len(content) != 12 or crc32(content[:8]) != struct.unpack(">I", content[8:])[0]:
        log.error("%s is DAMAGED: %d bytes that are no number", path, len(content))
        return 0
    return struct.unpack(">Q", content[:8])[0]
