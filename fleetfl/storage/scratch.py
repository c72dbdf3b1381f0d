"""Temporary folders that do not outlive their process, nor do the processes that were started from them.

A folder's owner holds a lock on the file `owner` in it. The kernel lets go of that when the owner has ended
in whatever way; so whoever starts next can tell what a killed one left, and clears it away. Nothing else
decides it: no process number, which another process may have by now, and no path that a file names.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

PREFIX = "fleetfl-"
OWNER = "owner"
PROGRAMS = ("haproxy", "gcs_server", "raylet")
"""Programs started from such folders; other processes, such as a reader of a log, are left alone."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Context with a temporary folder of this process; folders that killed processes left are removed.

    When the context is left, processes that were started with a file in the folder are ended, and it is
    removed.
    """
    clear_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with _owned(folder):
        try:
            yield folder
        finally:
            remove(folder)


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    partial = folder / f".{OWNER}"
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        partial.rename(
            folder / OWNER
        )  # there is never an owner's file without a lock while it lives
        yield
    finally:
        os.close(descriptor)


def clear_leftovers() -> None:
    """Remove the folders whose owner has ended without doing so, and end what was started from them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or somebody else clears it
            if _is_left_over(folder):
                log.info("clearing %s, which a killed process left", folder)
                remove(folder)


def _is_left_over(folder: Path) -> bool:
    """Whether the folder's owner has ended. Raises OSError if it cannot be known."""
    about = folder.lstat()
    if folder.is_symlink() or about.st_uid != os.getuid():
        return False
    descriptor = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove(folder: Path, patience_s: float = 10.0) -> None:
    """End the processes that were started with a file of `folder`, and remove it; returns when they are gone.

    Among them are HAProxies. At a reload one starts its successor, which Ray then loses sight of; and it
    outlives a server that was killed, on the endpoint's port.
    """
    deadline = time.monotonic() + patience_s
    number = signal.SIGTERM
    while _signalled(folder, number) and time.monotonic() < deadline:
        time.sleep(0.05)
        if time.monotonic() > deadline - patience_s / 2:
            number = signal.SIGKILL
    shutil.rmtree(folder, ignore_errors=True)


def _signalled(folder: Path, number: signal.Signals) -> bool:
    """Send the signal to the processes started from the folder; says whether there were any."""
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended by itself, or is not ours to see
            if process.stat().st_uid == os.getuid() and _names(process, folder):
                os.kill(int(process.name), number)
                found = True
    return found


def _names(process: Path, folder: Path) -> bool:
    """Whether the process was started with a file in the folder. Raises OSError."""
    if int(process.name) == os.getpid():
        return False
    inside = f"{folder}/".encode()
    arguments = (process / "cmdline").read_bytes().split(b"\0")
    program = Path((process / "exe").readlink()).name
    return program in PROGRAMS and any(
        a.startswith(inside) or b"=" + inside in a for a in arguments
    )
