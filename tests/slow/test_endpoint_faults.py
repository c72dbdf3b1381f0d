"""SIGKILL to each part around the endpoint while pictures are asked about: all come back by themselves."""

import asyncio
import contextlib
import json
import logging
import time

import httpx
import psutil
import pytest

from fleetfl.events.event_log import EventReader
from sim.chaos.testbed import ENDPOINT_PARTS, is_titled
from tests.cluster.conftest import HELD_OUT, asking, running_server
from tests.cluster.test_recovery import GOAL, RUN, Vehicle, frames

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)
PATIENCE_S = 90.0


def kill(run, title):
    """SIGKILL to all processes of this run with this title."""
    victims = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(RUN) == run and is_titled(process, title):
                victims.append(process)
    assert victims, f"no {title} runs"
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_for(what, is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not after {PATIENCE_S:g} s"
        time.sleep(0.05)


def served_version(server):
    with contextlib.suppress(httpx.HTTPError, ValueError):
        return httpx.get(f"{server.url}/v1/model", timeout=5).json().get("model_version", -1)
    return -1


def test_what_is_killed_around_the_endpoint_comes_back(tmp_path, model_config, monkeypatch):
    """Two replicas. After each kill a new release is evaluated and served; receipts never stop."""
    monkeypatch.setenv(RUN, str(tmp_path))
    layout = model_config.build().layout
    HELD_OUT.save(tmp_path / "held_out.npz")
    settings = (
        "server.http.replicas=2",
        f"server.aggregator.goal={GOAL}",
        f"server.held_out={tmp_path / 'held_out.npz'}",
    )
    with running_server(tmp_path, *settings) as server, asking(server.url, tmp_path) as client:
        wait_for("release 0 evaluated", lambda: server.events("evaluated"))
        version, figures = 0, {}
        for who, title in ENDPOINT_PARTS.items():
            time.sleep(1.0)
            failures, killed_at = client.failures, time.time()
            replicas = len(server.events("replica_started"))
            kill(str(tmp_path), title)
            vehicle = Vehicle(server, who)
            asyncio.run(vehicle.drive(list(frames(layout, who, GOAL)), every_s=0))
            assert {v for each in vehicle.receipts.values() for v in each} == {"accepted"}
            version += 1
            if who == "replica":
                wait_for(
                    "new replicas",
                    lambda at=replicas + 2: len(server.events("replica_started")) >= at,
                )
            wait_for(
                f"release {version} evaluated after {who}",
                lambda v=version: v in {e["version"] for e in server.events("evaluated")},
            )
            wait_for(f"release {version} served", lambda v=version: served_version(server) >= v)
            client.measure()
            failed = [
                e["time"]
                for e in EventReader(client.events.path).read()
                if e["event"] == "http_failed"
            ]
            last = max((t for t in failed if t > killed_at), default=killed_at)
            figures[who] = {
                "failed": client.failures - failures,
                "until_s": round(last - killed_at, 2),
            }
        client.stop()
        failures = client.failures
        assert client.measure().version == version
        assert client.failures == failures
        assert server.process.poll() is None
        # Figures, not tests (docs/results/faults.md); shown by --log-cli-level=INFO
        log.info("killed, with %d requests: %s", client.requests, json.dumps(figures))
