"""Locks a state folder for one process at a time, a server or a vehicle's agent. Knows only a lock file."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

from fleetfl import FleetflError

LOCK = "server.lock"
AGENT_LOCK = "agent.lock"


class TenancyError(FleetflError, RuntimeError):
    """A state folder that another process has, or that cannot be used at all."""


@contextmanager
def state_lock(state: Path, part: Literal["server", "vehicle"] = "server") -> Iterator[None]:
    """Context that locks the folder, which is made private if it is not there.

    The kernel releases the lock of a process that ends in whatever way, and nothing is believed of what
    the file says: a folder may be a copy of another server's. Raises TenancyError.
    """
    path = state / (LOCK if part == "server" else AGENT_LOCK)
    try:
        make_private(state)
        # Not truncated before it is locked: what is in there is the holder's.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    except (OSError, ValueError) as unusable:
        reason = getattr(unusable, "strerror", None) or unusable
        raise TenancyError(f"{part}.state: {state} cannot be used: {reason}") from unusable
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            holder = " ".join(file.read(100).split())
            raise TenancyError(
                f"{part}.state: {state} belongs to another {part} that runs"
                f"{f' ({holder})' if holder else ''}; stop that one, or name another folder with "
                f"--set {part}.state=FOLDER"
            ) from held
        except OSError as unusable:
            raise TenancyError(
                f"{part}.state: {path} cannot be locked: {unusable.strerror}; name a folder on another "
                f"file system with --set {part}.state=FOLDER"
            ) from unusable
        _say(file, f"process {os.getpid()} on {os.uname().nodename}\n")
        yield
        _say(file, "")


def make_private(state: Path) -> None:
    """Make the folder, and deny it to other users of this machine. Raises OSError.

    Journals, checkpoints and outboxes hold what vehicles learned, and keys are beside them.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = state.stat().st_mode & 0o777
    if mode & 0o077 and state.stat().st_uid == os.getuid():
        state.chmod(mode & 0o700)


def only_for_owner() -> None:
    """Deny other users the files that this process makes from now on."""
    os.umask(0o077)


def _say(file: TextIO, about: str) -> None:
    try:
        file.seek(0)
        file.truncate()
        file.write(about)
        file.flush()
    except OSError:
        return  # a full disk: it is for people to read, and the lock is held without it
