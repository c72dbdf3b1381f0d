"""Child processes that never outlive this one and do not get its Ctrl-C. They may be any program."""

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Runs in the child and becomes the program. Asked for after the fork and not in a preexec_fn, which
# is unsafe (and from Python 3.12 on a warning) in a process with threads.
_UNTIL_PARENT_DIES = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that runs us in the background has it ignored
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent died first")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def start(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a program in a new session (and process group), with both outputs appended to `log`.

    On Linux the kernel kills it when this process ends, also by SIGKILL, but not its own children. Raises
    FileNotFoundError on other systems if there is no such program; on Linux that error ends in `log`.
    """
    if sys.platform == "linux":
        guard = [sys.executable, "-I", "-S", "-c", _UNTIL_PARENT_DIES, str(os.getpid())]
        argv = [*guard, *argv]
    launch = functools.partial(_launch, list(argv), log=log, env=env, cwd=cwd)
    return _launcher().submit(launch).result()


@functools.cache
def _launcher() -> ThreadPoolExecutor:
    # "Parent" means the thread that forked: a child started from a worker thread would be killed
    # when that worker ends. This thread stays until the interpreter goes.
    return ThreadPoolExecutor(1, thread_name_prefix="process-launcher")


def _launch(
    argv: list[str], *, log: Path, env: Mapping[str, str] | None, cwd: Path | None
) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )


def end_with_parent() -> None:
    """End this `multiprocessing` process when its parent has ended.

    Without it, a pool's processes wait for ever on a pipe that they hold open themselves, and a fork server
    stays as long as one of them does.
    """
    threading.Thread(target=_end_after_parent, name="end-with-parent", daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process started by multiprocessing has a parent to watch"
    parent.join()
    os._exit(1)


def stop(process: "subprocess.Popen[bytes]", patience_s: float = 5.0) -> None:
    """Send SIGTERM to the whole group, and SIGKILL to what is left of it after `patience_s` seconds."""
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGKILL to the whole group; returns when the process has ended."""
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
