"""Rollback by the command line on a running server: all follow to the old bits, a SIGKILL changes none."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from actors.config import ServerConfig
from fleetfl.config import load
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Rollback, Update
from fleetfl.protocol.signing import OneKey
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.releases.versions import Follower
from fleetfl.storage.journal import Journal, path_in
from fleetfl.transport.mqtt import Config as Mqtt
from sim import world
from sim.processes import children
from tests.cluster.conftest import ROOT, RunningServer, running_server
from tests.cluster.test_recovery import FLEET, Vehicle, frames, retained, served
from tests.cluster.test_vehicle import start
from vehicle_agent.release_follower import ReleaseFollower

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)
GOAL = "server.aggregator.goal=3"


def model(server, *words):
    argv = [sys.executable, "-m", "fleetfl", "model", *words, "--state", str(server.state)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(found, what, patience_s=180.0):
    """What `found` gives, once that is something."""
    deadline = time.monotonic() + patience_s
    while not (result := found()):
        assert time.monotonic() < deadline, f"{what} within {patience_s} s"
        time.sleep(0.1)
    return result


@contextlib.contextmanager
def following(server, layout):
    """A vehicle's way to each newest release, as the list of what it held."""
    held, loop = [], asyncio.new_event_loop()

    async def follow():
        transport = Mqtt(host=server.broker.host, port=server.broker.port)
        async with transport.connect("follower") as link:
            adoption = ReleaseFollower(
                FLEET,
                layout,
                follower=Follower(layout),
                transport=link,
                server_key=OneKey(FLEET, server.state / "server.pub"),
                fetch_s=20,
                retry_s=5,
                tell=lambda note: held.append(adoption.held),
            )
            await adoption.run()

    task = loop.create_task(follow())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        yield held
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def release(server, version):
    listed = json.loads(model(server, "list", "--json"))
    return next((row for row in listed if row["version"] == version), None)


def replayed(server):
    """What a Coordinator comes to that counts the journal's rows one after the other."""
    config = load(
        ROOT / "configs/server.yaml", "server", ServerConfig, [f"server.state={server.state}", GOAL]
    )
    layout, params = read_adapter(server.state / "initial.safetensors")
    generation = server.events("aggregator_started")[-1]["generation"]
    coordinator = Coordinator.from_settings(config, params, layout, generation=generation)
    with contextlib.closing(Journal(path_in(server.state))) as journal:
        for kept in journal.rows(0, 1_000_000):
            message = wire.decode(kept.frame)
            if isinstance(message, Rollback):
                coordinator.roll_back(message)
            else:
                assert isinstance(message, Update)
                coordinator.submit(message)
    return coordinator.published


def serves(server, version):
    card = httpx.get(f"{server.url}/v1/model", timeout=10).json()
    return card if card["model_version"] == version else None


def vehicles(server: RunningServer) -> list[dict]:
    """What the monitor shows of the fleet."""
    return httpx.get(f"{server.monitor_url}/fleet", timeout=10).json()


def test_all_follow_to_the_old_bits_and_a_kill_changes_none(tmp_path, model_config):
    """10 updates and the one of a real vehicle, 3 a version: version 3; back to 1 as version 4."""
    layout = model_config.build().layout
    pictures = tmp_path / "frames" / world.CLASSES[0]
    pictures.mkdir(parents=True)
    for number, image in enumerate(world.render(np.zeros(8, np.int64), seed=1)):
        Image.fromarray(image).save(pictures / f"{number}.png")
    with running_server(tmp_path, GOAL) as server, following(server, layout) as held:
        rests = "vehicle.agent={status_s: 1, pause_s: 3600}"  # after one update
        drone = start(server, tmp_path, tmp_path / "frames", "drone-01", rests)
        try:
            until(lambda: server.events("accepted"), "an update of the vehicle", 120)
            asyncio.run(Vehicle(server, "v1").drive(list(frames(layout, "v1", 10)), every_s=0))
            served(server, 3)
            old = until(lambda: release(server, 1), "version 1 in the registry")
            said = model(server, "rollback", "1", "--reason", "a test")
            assert said == f"version 4 has the bits of {old['name']}: {old['sha256']}\n"

            now = until(lambda: [h for h in held if h and h.version == 4], "version 4 followed")[0]
            assert now.sha256.hex() == old["sha256"]
            card = until(lambda: serves(server, 4), "version 4 served")
            assert card["sha256"] == old["sha256"]
            until(
                lambda: 4 in [each["version"] for each in vehicles(server)],
                "the vehicle's status with version 4",
            )

            pid = server.events("aggregator_started")[-1]["pid"]
            os.kill(pid, signal.SIGKILL)
            until(lambda: server.events("aggregator_started")[-1]["pid"] != pid, "a new aggregator")
            snapshot = retained(server)
            assert (snapshot.version, snapshot.sha256.hex()) == (4, old["sha256"])
            asyncio.run(Vehicle(server, "v2").drive(list(frames(layout, "v2", 3)), every_s=0))
            found, expected = served(server, 5), replayed(server)
            assert (found.version, found.sha256) == (5, expected.sha256)
            assert serves(server, 5) or until(lambda: serves(server, 5), "version 5 served")
            assert len(server.events("rolled_back")) == 1
            row = until(lambda: release(server, 4), "version 4 in the registry")
            assert (row["restores"], row["sha256"]) == (old["name"], old["sha256"])
            # Shown by --log-cli-level=INFO: from the row on disk on.
            for kind in ("rolled_back", "announced", "serving"):
                at = min(e["time"] for e in server.events(kind) if e["version"] == 4)
                log.info("%s after %.2f s", kind, at - row["created"])
        finally:
            children.stop(drone, 15)
