"""Starts and ends the Ray cluster that a server's actors run in. Knows no actor."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actors.config import ServerConfig
from actors.errors import ServerError
from actors.ports import free_ports
from fleetfl.protocol.addresses import unproxied
from fleetfl.storage.scratch import remove

RAY_TRIES = 3
LONGEST_RAY_FOLDER = 40
"""Characters of a path for Ray's sockets: they add some 65, and the kernel allows 107."""


@contextlib.contextmanager
def ray_cluster(config: ServerConfig, folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Connect to Ray inside the context: to a cluster of our own, or to the one in the settings.

    Each step is told to `tell`. Raises ServerError if Ray does not start.
    """
    os.environ.update(ray_environment(config, folder))  # Ray reads it when it is imported
    import ray

    # "local": without an address Ray joins whatever cluster was started on this machine.
    options: dict[str, Any] = {"address": config.ray.address or "local"}
    if config.ray.address is None:
        options |= {
            "include_dashboard": False,
            "object_store_memory": config.ray.object_store_bytes,
        }
    for number in range(1, RAY_TRIES + 1):
        # A folder for each try: what a try that failed leaves running is known by it.
        mine = folder / f"ray{number}"
        if config.ray.address is None and len(str(mine)) <= LONGEST_RAY_FOLDER:
            options["_temp_dir"] = str(mine)
        tell("Ray: starting the processes that the parts run in" + _again(number))
        try:
            with kept_sigterm():
                ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
            break
        except Exception as failed:  # that is what Ray raises
            reason = " ".join(str(failed).split()) or type(failed).__name__
            ray.shutdown()
            remove(mine)
            if number == RAY_TRIES or config.ray.address is not None:
                raise ServerError(f"Ray did not start, tried {number} times: {reason}") from failed
            tell(f"Ray did not start: {reason:.300}")
    try:
        yield
    finally:
        # A cluster of our own ends whole; asked to end first, Serve's controller fills the terminal.
        if config.ray.address is not None and config.http is not None:
            from ray import serve

            serve.shutdown()
        ray.shutdown()


@contextlib.contextmanager
def kept_sigterm() -> Iterator[None]:
    """Keep the SIGTERM handler inside the context: Ray replaces it by one that prints a stack and aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    meaning = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, meaning)


def _again(number: int) -> str:
    return f" (try {number} of {RAY_TRIES})" if number > 1 else ""


def ray_environment(config: ServerConfig, scratch: Path) -> dict[str, str]:
    """Environment variables that set up Ray and Serve, with their files in `scratch`."""
    environment = {
        # Ray, gRPC and Serve talk over this machine's own addresses, and a proxy does not know those.
        **unproxied(os.environ, [config.ray.address or "", config.monitor.host]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
        # On a small busy machine a proxy needs longer than Serve's five seconds to come up.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # Three looks in a row that fail: a HAProxy that died would be missed for half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Ray starts its workers at niceness 15: the endpoint would wait for whatever else is busy here.
        "RAY_worker_niceness": "0",
        # What builds a model says how many threads it may have.
        "OMP_NUM_THREADS": "1",
    }
    if config.http is not None and config.http.proxy == "haproxy":
        # Fixed paths and ports by default: two servers on one machine would share them.
        # HAProxy listens on all interfaces there, so the ports have to be free on all. The proxy that
        # answers until a replica is there would take its port even beside another server's, and the
        # kernel would give each of them some of both servers' requests.
        stats, metrics, fallback = free_ports(3, host="")
        environment |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        }
    return environment
