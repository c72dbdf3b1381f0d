"""Writes files whole or not at all, also across a loss of power. Knows nothing of their content."""

import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, over an older one of that name; it is on disk under its name on return.

    Raises OSError; an older file is then as it was. One process at a time may write a path.
    """
    write_whole(path, content)
    sync(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole; a loss of power may take it back until its folder is synced. Raises OSError."""
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
    """Have the folder's entries on disk: before that a loss of power may take a rename back. Raises
    OSError.
    """
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
