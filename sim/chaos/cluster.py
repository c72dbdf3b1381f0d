"""A Ray cluster that many runs share, one after the other: starting one takes longer than a run."""

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.cluster import ServerError
from fleetfl.ports import free_ports
from sim import processes

HOST = "127.0.0.1"
OBJECT_STORE_BYTES = 80 * 2**20
TRIES = 3
PATIENCE_S = 120.0
"""Of each try; Ray itself gives up after half a minute without an answer."""

_one_start = threading.Lock()


@contextmanager
def ray_cluster(log: Path) -> Iterator[str]:
    """The address of a cluster of its own, until the context is left. Raises ServerError."""
    # A folder of its own also keeps it from being found by whoever asks for any cluster.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        process, address = _started(folder, log)
        try:
            yield address
        finally:
            processes.stop(process, 20)


def _started(folder: str, log: Path) -> "tuple[subprocess.Popen[bytes], str]":
    # One after the other: together they starve each other beyond what Ray waits for.
    with _one_start:
        for _ in range(TRIES):
            port, client_port, agent_port = free_ports(3)
            log.unlink(missing_ok=True)  # an earlier start would be taken for this one
            argv = _argv(folder, port, client_port, agent_port)
            process = processes.start(argv, log=log, env=_environment())
            if _has_come_up(process, log):
                return process, f"{HOST}:{port}"
            processes.stop(process)
    raise ServerError(f"no Ray cluster came up in {TRIES} tries; see {log}")


def _argv(folder: str, port: int, client_port: int, agent_port: int) -> list[str]:
    # Free ports for whatever would have a fixed one, so that two clusters fit on one machine.
    options = {
        "temp-dir": folder,
        "node-ip-address": HOST,
        "port": port,
        "ray-client-server-port": client_port,
        "dashboard-agent-listen-port": agent_port,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "include-dashboard": False,
        "object-store-memory": OBJECT_STORE_BYTES,
    }
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    return [*argv, *(f"--{name}={value}" for name, value in options.items())]


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""In the environment of the cluster and of who joins it: made up for this process, and nowhere on disk."""


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        **TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
    }


def _has_come_up(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and "Ray runtime started" in log.read_text(errors="replace"):
            return True
        time.sleep(0.1)
    return False
