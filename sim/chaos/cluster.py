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

_one_start = threading.Lock()


@contextmanager
def ray_cluster(log: Path, patience_s: float = 240.0) -> Iterator[str]:
    """The address of a cluster of its own, until the context is left. Raises ServerError."""
    # A folder of its own also keeps it from being found by whoever asks for any cluster.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        port, client_port, agent_port = free_ports(3)
        argv = _argv(folder, port, client_port, agent_port)
        process = None
        try:
            # One after the other: together they starve each other beyond what Ray waits for.
            with _one_start:
                log.unlink(
                    missing_ok=True
                )  # or the start of the one before would be taken for ours
                process = processes.start(argv, log=log, env=_environment())
                _wait_for(process, log, patience_s)
            yield f"{HOST}:{port}"
        finally:
            if process is not None:
                processes.stop(process, 20)


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
        "RAY_raylet_start_wait_time_s": "200",  # on a machine that has other things to do
        "OMP_NUM_THREADS": "1",
    }


def _wait_for(process: "subprocess.Popen[bytes]", log: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"no Ray cluster came up within {patience_s:g} s; see {log}")
        time.sleep(0.1)
