"""Files that are there whole or not at all, also after a loss of power. Knows nothing of what is in them."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Returns once it is on disk under its name, over an older file of that name.

    Raises OSError; an older one is then as it was. One process at a time may write a path.
    """
    write_whole(path, content)
    sync(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """As `write_durably`, but a loss of power may undo it until its folder is synced. Raises OSError."""
    _make(path.parent)
    partial = path.with_name(f".{path.name}.partial")
    # Not waiting: a pipe may have been left there.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def sync(folder: Path) -> None:
    """Until then a rename in it may be undone by a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)
