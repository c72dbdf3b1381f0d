"""HAProxy processes that nobody looks after any more."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path


def end_strays(scratch: Path, patience_s: float = 10.0) -> None:
    """End the HAProxy processes whose files are in `scratch`, and remove those; returns when they are gone.

    At a reload HAProxy starts its successor, which Ray then loses sight of; and it outlives a server
    that was killed, on the endpoint's port.
    """
    deadline = time.monotonic() + patience_s
    while _signalled(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(scratch, ignore_errors=True)


def _signalled(scratch: Path) -> bool:
    """Whether there was one to be ended."""
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended by itself, or is not ours to see
            if f"{scratch}/".encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGTERM)
                found = True
    return found
