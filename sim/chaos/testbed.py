"""Testbed of one chaos run: broker, links, server and vehicles, with ways to break and restart each."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from actors.config import ServerConfig
from actors.monitoring.monitor import is_ready
from actors.ports import free_ports
from fleetfl import FleetflError
from fleetfl.config import validate
from fleetfl.events.event_log import EventReader
from fleetfl.protocol.addresses import url_of
from fleetfl.storage import backup
from fleetfl.storage.backup import Manifest
from sim.chaos import brokers
from sim.chaos.brokers import BrokerConfig
from sim.chaos.cluster import TOKEN
from sim.chaos.fleet import VehicleProcess
from sim.chaos.tcp_proxy import Proxy, proxy
from sim.chaos.vehicle import Settings
from sim.processes import children
from sim.processes.brokers import Broker

MARK = "FLEETFL_CHAOS_RUN"
"""Environment variable that marks the processes of a run's server; its value is the run's folder."""
QUIET_LOOKS = 5
"""Consecutive checks that find no process of the server before it counts as gone."""
LOOK_S = 0.2
"""Seconds between two of these checks."""
SERVER_KEY = "server.pub"
"""File name of the server's public key, and of the vehicles' copy of it."""
ENDPOINT_PARTS = {
    "evaluator": "ray::Evaluator",
    "replica": "ray::ServeReplica",
    "proxy": "haproxy",
}
"""Parts of the endpoint that can be killed, with the title of their processes."""


class FaultError(FleetflError, RuntimeError):
    """Raised when a fault cannot be injected because there is no victim or no permission."""


class TestbedError(FleetflError, RuntimeError):
    """Raised when a part of the testbed does not start, or ends by itself; the message names the part."""


@dataclass(frozen=True)
class LostHost:
    """Events of a host before it was lost, and the backup that was restored on another host."""

    events: list[dict[str, Any]]
    backup: Manifest


class Testbed:
    """Running parts of one chaos run: broker, server, vehicles, and the proxies between them."""

    def __init__(
        self,
        folder: Path,
        tree: dict[str, Any],
        *,
        running: Broker,
        server_link: Proxy,
        broker_persists: bool,
        has_endpoint: bool,
        stopping: threading.Event,
    ) -> None:
        self.folder, self.tree = folder, tree
        self.broker, self.server_link = running, server_link
        self.broker_persists, self.has_endpoint = broker_persists, has_endpoint
        self.stopping = stopping
        self.config = validate(tree, "server", ServerConfig, str(folder))
        self.vehicles: list[VehicleProcess] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.backup: Manifest | None = None
        """Manifest of the newest backup, which is in the folder `backup`; None before the first."""
        self.lost: list[LostHost] = []
        """Hosts lost so far, oldest first."""
        self._write_settings()

    def _write_settings(self) -> None:
        (self.folder / "server.yaml").touch(mode=0o600)  # the broker's password may be in it
        (self.folder / "server.yaml").write_text(yaml.safe_dump(self.tree, sort_keys=False))

    def back_up(self) -> None:
        """Replace the backup by a new one of the server's state. Raises FaultError."""
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        try:
            self.backup = backup.make(self.config.state, self.folder / "backup")
        except backup.BackupError as failed:
            raise FaultError(str(failed)) from failed

    def lose_host(self) -> None:
        """Kill the server, delete its state, and restore the newest backup into a new state folder."""
        assert self.backup is not None, "a backup was made before"
        self._kill_until_gone()
        self.lost.append(LostHost(self._own_events(), self.backup))
        shutil.rmtree(self.config.state)
        state = self.folder / f"state-{len(self.lost) + 1}"
        backup.restore(self.folder / "backup", state)
        self.tree = {**self.tree, "server": {**self.tree["server"], "state": str(state)}}
        self.config = validate(self.tree, "server", ServerConfig, str(self.folder))
        self._write_settings()

    def start_server(self) -> None:
        argv = [sys.executable, "-m", "fleetfl", "server", "run", str(self.folder / "server.yaml")]
        env = {**os.environ, MARK: str(self.folder)} | ({} if self.has_endpoint else TOKEN)
        self.server = children.start(argv, log=self.folder / "server.log", env=env)

    def kill_server(self) -> None:
        """Kill the server with all its processes, as when its machine fails."""
        if self.server is not None:
            children.kill(self.server)
            self.server = None
        for process in self._server_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _kill_until_gone(self, patience_s: float = 30.0) -> None:
        """Kill until no process comes back: the cluster may restart an actor before it notices the loss."""
        deadline = time.monotonic() + patience_s
        num_quiet = 0
        while num_quiet < QUIET_LOOKS:
            if time.monotonic() > deadline:
                raise TestbedError(f"a process of the server lives on after {patience_s:g} s")
            self.kill_server()
            time.sleep(LOOK_S)
            num_quiet = 0 if any(True for _ in self._server_processes()) else num_quiet + 1

    def kill_server_alone(self) -> None:
        """Kill only the server's main process, and leave the processes that it started."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.server = None

    def _server_processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == str(self.folder):
                    yield process

    def is_endpoint_ready(self) -> bool:
        """Whether the endpoint is ready to answer; True also for runs without an endpoint."""
        http = self.config.http
        return http is None or is_ready(url_of(http.host, http.port))

    def check(self) -> None:
        """Raises TestbedError if the server or a vehicle ended by itself, or the campaign is being
        stopped.
        """
        if self.stopping.is_set():
            raise TestbedError("stopped")
        if self.server is not None and self.server.poll() is not None:
            raise TestbedError(f"the server ended with status {self.server.returncode}")
        for vehicle in self.vehicles:
            if vehicle.process is not None and not vehicle.is_alive:
                raise TestbedError(f"{vehicle.name} ended with status {vehicle.process.exitcode}")

    def events(self) -> list[dict[str, Any]]:
        """Server events of the lost hosts and of the present one, in order."""
        return [event for host in self.lost for event in host.events] + self._own_events()

    def _own_events(self) -> list[dict[str, Any]]:
        path = self.config.state / "events.jsonl"
        return EventReader(path).read() if path.exists() else []

    def receipts(self) -> list[dict[str, Any]]:
        """Receipts of all vehicles in order of time, with the key `vehicle` added."""
        found = [{**r, "vehicle": v.name} for v in self.vehicles for r in v.receipts()]
        return sorted(found, key=lambda receipt: receipt["time"])

    def kill(self, who: str) -> None:
        """Send SIGKILL to an actor or a part of the endpoint. Raises FaultError if it is not running."""
        if who in ENDPOINT_PARTS:
            self._kill_titled(ENDPOINT_PARTS[who], who)
            return
        pids = [e["pid"] for e in self.events() if e["event"] == f"{who}_started"]
        try:
            os.kill(pids[-1], signal.SIGKILL)
        except (IndexError, ProcessLookupError) as gone:
            raise FaultError(f"no {who} to be killed") from gone

    def _kill_titled(self, title: str, who: str) -> None:
        found = [p for p in self._server_processes() if is_titled(p, title)]
        if not found:
            raise FaultError(f"no {who} to be killed")
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def empty_broker(self) -> None:
        """Delete the sessions and messages that the stopped broker has on disk."""
        brokers.empty(self.folder / "broker")


def is_titled(process: psutil.Process, title: str) -> bool:
    """Whether the process is a Ray actor with this title, or a program with this name."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.name() == title or " ".join(process.cmdline()).startswith(title)
    return False


@contextmanager
def running_testbed(
    tree: dict[str, Any],
    folder: Path,
    *,
    choice: BrokerConfig,
    has_endpoint: bool,
    address: str | None,
    num_vehicles: int,
    seed: int,
    stopping: threading.Event,
) -> Iterator[Testbed]:
    """Context with a testbed whose parts are started but not yet ready. Raises BrokerError."""
    with ExitStack() as stack:
        running = stack.enter_context(choice.start(folder / "broker"))
        server_link = stack.enter_context(proxy(running.host, running.port))
        transport = {**tree["transport"], "host": server_link.host, "port": server_link.port}
        # Fixed over restarts, so that a process left over from the previous server shows as a conflict.
        endpoint_port, monitor_port = free_ports(2)
        ours: dict[str, Any] = {"state": str(folder / "state"), "monitor": {"port": monitor_port}}
        if has_endpoint:
            ours["http"] = {"port": endpoint_port}
        else:
            ours |= {"http": None, "held_out": None, "ray": {"address": address}}
        server = {**tree, "transport": transport, "server": {**tree.get("server", {}), **ours}}
        testbed = Testbed(
            folder,
            server,
            running=running,
            server_link=server_link,
            broker_persists=choice.persists,
            has_endpoint=has_endpoint,
            stopping=stopping,
        )
        stack.callback(testbed.kill_server)
        testbed.start_server()
        for number in range(num_vehicles):
            link = stack.enter_context(proxy(running.host, running.port))
            vehicle = VehicleProcess(_settings(tree, folder, link, number, seed), link)
            testbed.vehicles.append(vehicle)
            stack.callback(vehicle.kill)
        yield testbed


def _settings(tree: dict[str, Any], folder: Path, link: Proxy, number: int, seed: int) -> Settings:
    part = tree.get("vehicle", {})
    name = f"v{number}"
    return Settings(
        fleet=tree["fleet"],
        name=name,
        seed=seed * 1000 + number,
        folder=folder / name,
        transport={**tree["transport"], "host": link.host, "port": link.port},
        agent=part.get("agent", {}),
        codec=part.get("codec", {"kind": "spectral"}),
        initial=Path(tree["server"]["initial"]),
        server_key=folder / SERVER_KEY,
    )
