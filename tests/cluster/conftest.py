"""One real server for all tests of this folder: nats-server, Ray, Serve, by the command a user types."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from fleetfl.events.event_log import EventLog, EventReader
from fleetfl.tasks.classification import Classification
from sim import world
from sim.datasets import Weather
from sim.datasets.drone_world import Config as DroneWorld
from sim.live.client import Client
from sim.processes import brokers, children
from sim.processes.brokers import Broker

ROOT = Path(__file__).parents[2]
HELD_OUT = DroneWorld(num_held_out=20).held_out([Weather(condition="fog")], seed=1)


@dataclass
class RunningServer:
    broker: Broker
    process: subprocess.Popen
    url: str
    state: Path
    log: Path

    @property
    def monitor_url(self) -> str:
        """As the server prints it."""
        return self.log.read_text().split("fleetfl status --url ")[1].split()[0]

    def events(self, kind: str) -> list[dict]:
        if not (self.state / "events.jsonl").exists():
            return []
        return [e for e in EventReader(self.state / "events.jsonl").read() if e["event"] == kind]


@contextlib.contextmanager
def running_server(
    folder: Path, *overrides: str, has_endpoint: bool = True
) -> Iterator[RunningServer]:
    """`fleetfl server run configs/server.yaml` with a broker of its own, up to its first release.

    Without an endpoint a start takes half the processor time: for tests that ask for no picture.
    """
    with brokers.nats_server(folder / "broker") as mqtt:
        state, log = folder / "state", folder / "server.log"
        settings = [
            f"transport.port={mqtt.port}",
            "transport.max_payload_bytes=1000000",  # a snapshot is one packet for the tests to read
            f"server.state={state}",
            "server.http.port=0" if has_endpoint else "server.http=null",
            "server.monitor.port=0",  # without an endpoint it is the same one for all
            "server.aggregator.goal=2",
            *overrides,
        ]
        argv = [sys.executable, "-m", "fleetfl", "server", "run", str(ROOT / "configs/server.yaml")]
        argv += [word for setting in settings for word in ("--set", setting)]
        process = children.start(argv, log=log)
        try:
            server = RunningServer(mqtt, process, "", state, log)
            server.url = endpoint(server) if has_endpoint else announcing(server)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                # To end in order takes it 3 s, and 11 s if its actors are ended under it.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
            children.stop(process)


def looked_at(server: RunningServer, patience_s: float = 400) -> Iterator[str]:
    """What the server has printed up to now, again and again, until it ends or patience does."""
    deadline, text = time.monotonic() + patience_s, ""
    while time.monotonic() < deadline:
        text = server.log.read_text() if server.log.exists() else ""
        assert server.process.poll() is None, f"the server ended:\n{text}"
        yield text
        time.sleep(0.2)
    raise AssertionError(f"not ready after {patience_s} s:\n{text}")


def endpoint(server: RunningServer) -> str:
    """The address that the server prints, once it is ready."""
    for text in looked_at(server):
        if "endpoint at http" in text:
            url = text.split("endpoint at ")[-1].split()[0]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    return url
    raise AssertionError


def announcing(server: RunningServer) -> str:
    """Return once it is up and has announced a release; there is no address."""
    began = time.time()
    for _ in looked_at(server):
        if any(event["time"] >= began for event in server.events("announced")):
            return ""
    raise AssertionError


@contextlib.contextmanager
def asking(url: str, folder: Path) -> Iterator[Client]:
    """A client that asks 20 times a second, and writes down what fails."""
    client = Client(url, HELD_OUT, Classification(world.CLASSES), EventLog(folder / "client.jsonl"))
    client.start(20.0)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running
