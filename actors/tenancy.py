"""One server at a time for a state folder. Knows only the file `server.lock` in it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fleetfl import FleetflError


class TenancyError(FleetflError, RuntimeError):
    """Another server has the state folder."""


@contextmanager
def sole(state: Path, about: str) -> Iterator[str]:
    """Hold the folder; gives what the last holder said `about` itself, if it was killed, else "".

    The kernel lets go of it for a process that ends in whatever way. Raises TenancyError.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "server.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise TenancyError(
                f"server.state: {state} belongs to another server that runs; stop that one, or name "
                "another folder with --set server.state=FOLDER"
            ) from held
        file.seek(0)
        before = file.read()
        _say(file, about + "\n")
        yield before[:-1] if before.endswith("\n") else ""  # killed while it wrote
        _say(file, "")


def _say(file: TextIO, about: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(about)
    file.flush()
