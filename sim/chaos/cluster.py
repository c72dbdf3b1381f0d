"""A Ray cluster that many runs share in turn, because starting a cluster takes longer than a run.

Further nodes on this machine can join it, and can be killed like remote ones.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.errors import ServerError
from actors.ports import free_ports
from sim.processes import children

HOST = "127.0.0.1"
OBJECT_STORE_BYTES = 80 * 2**20
TRIES = 3
"""Attempts to start a node before ServerError is raised."""
PATIENCE_S = 120.0
"""Seconds that each attempt to start a node may take; Ray itself gives up after 30 s without an answer."""

_one_start = threading.Lock()


@contextmanager
def ray_cluster(log: Path) -> Iterator[str]:
    """Context with a new Ray cluster; gives its address HOST:PORT. Raises ServerError."""
    # The separate folder also hides this cluster from programs that connect to any local cluster.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        process, address = _started(folder, log)
        try:
            yield address
        finally:
            children.stop(process, 20)


@contextmanager
def ray_node(address: str, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Context with another node of the cluster at `address`; its processes descend from the one that is
    given. Raises ServerError.
    """
    process = _node(log, lambda: {"address": address})
    try:
        yield process
    finally:
        children.stop(process, 20)


def _started(folder: str, log: Path) -> "tuple[subprocess.Popen[bytes], str]":
    address = ""

    def options() -> dict[str, Any]:
        nonlocal address
        port, client_port = free_ports(2)
        address = f"{HOST}:{port}"
        return {
            "head": None,
            "temp-dir": folder,
            "port": port,
            "ray-client-server-port": client_port,
            "include-dashboard": False,
        }

    process = _node(log, options)
    return process, address


def _node(log: Path, options: Callable[[], dict[str, Any]]) -> "subprocess.Popen[bytes]":
    # One after the other: together they starve each other beyond what Ray waits for.
    with _one_start:
        for _ in range(TRIES):
            log.unlink(missing_ok=True)  # an earlier start would be taken for this one
            process = children.start(_argv(options()), log=log, env=_environment())
            if _has_come_up(process, log):
                return process
            children.stop(process)
    raise ServerError(f"no Ray node came up in {TRIES} tries; see {log}")


def _argv(options: dict[str, Any]) -> list[str]:
    # Free ports for whatever would have a fixed one, so that two nodes fit on one machine.
    shared = {
        "node-ip-address": HOST,
        "dashboard-agent-listen-port": free_ports(1)[0],
        "min-worker-port": 0,
        "max-worker-port": 0,
        "object-store-memory": OBJECT_STORE_BYTES,
    }
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    words = (options | shared).items()
    return [
        *argv,
        *(f"--{name}" if value is None else f"--{name}={value}" for name, value in words),
    ]


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""Environment of the cluster and its clients with an access token, random per process and never on disk."""


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
