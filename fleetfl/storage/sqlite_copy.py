"""Copies another process's SQLite file without a lock on it, or a byte changed beside it.

Even a reader of SQLite takes locks, and whoever closes a file last writes to it. An agent's outbox is also
locked against readers. So the file and its write-ahead log are copied, and the copy is read.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetfl.plain_files import opened

TRIES = 20
PAUSE_S = 0.05
WAL_HEADER_BYTES = 32
"""Size, bytes, of the header of a write-ahead log, which changes when the log is started again."""


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Context with a copy of the file as a power cut at some moment would have left it. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="fleetfl-") as folder:
        copy = Path(folder) / path.name
        for _ in range(TRIES):
            before = _state(path)
            _copy(path, copy)
            try:
                _copy(_log(path), _log(copy))
            except FileNotFoundError:
                _log(copy).unlink(missing_ok=True)
            if _state(path) == before:
                break
            time.sleep(PAUSE_S)
        yield copy


def _copy(path: Path, to: Path) -> None:
    with opened(path) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target, 2**20)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _state(path: Path) -> tuple[int, int, int, bytes]:
    """State of file and log: equal before and after a copy in which the two belong together."""
    about = path.stat()
    try:
        with opened(_log(path)) as file:
            header = file.read(WAL_HEADER_BYTES)
    except FileNotFoundError:
        header = b""
    return about.st_ino, about.st_size, about.st_mtime_ns, header
