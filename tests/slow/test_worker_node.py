"""A Ray cluster of two nodes on this machine; the one without the state folder is killed whole."""

import asyncio
import contextlib
import json
import logging
import time

import psutil
import pytest

from sim.chaos.cluster import TOKEN, ray_cluster, ray_node
from tests.cluster.conftest import asking, running_server
from tests.cluster.test_recovery import GOAL, Vehicle, frames, served, without_faults

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)
PATIENCE_S = 120.0


def pids_of(node):
    return {node.pid, *(child.pid for child in psutil.Process(node.pid).children(recursive=True))}


def replicas(server):
    return [event["pid"] for event in server.events("replica_started")]


def wait_for(what, is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not after {PATIENCE_S:g} s"
        time.sleep(0.1)


def test_a_killed_node_takes_no_update_and_the_endpoint_goes_on(
    tmp_path, model_config, monkeypatch
):
    """Updates come and pictures are asked about all the while; the replica that was there is built again."""
    for name, value in TOKEN.items():
        monkeypatch.setenv(name, value)
    layout = model_config.build().layout
    with (
        ray_cluster(tmp_path / "head.log") as address,
        ray_node(address, tmp_path / "node.log") as node,
    ):
        settings = (
            f"server.ray.address={address}",
            "server.http.replicas=2",
            f"server.aggregator.goal={GOAL}",
        )
        with running_server(tmp_path, *settings) as server, asking(server.url, tmp_path) as client:
            wait_for("two replicas", lambda: len(replicas(server)) == 2)
            victims = pids_of(node)
            on_it = victims & set(replicas(server))
            assert len(on_it) == 1, "one replica on each node"
            state_keepers = {
                event["pid"]
                for kind in ("aggregator_started", "gateway_started")
                for event in server.events(kind)
            }
            assert not state_keepers & victims
            vehicle = Vehicle(server, "v1")

            async def scenario():
                sending = vehicle.drive(list(frames(layout, "v1", 40)), every_s=0.1)
                _, at = await asyncio.gather(sending, asyncio.to_thread(kill, victims, 1.5))
                return at

            killed_at = asyncio.run(scenario())
            assert set(vehicle.receipts) == set(range(40))
            wait_for("a third replica", lambda: len(replicas(server)) == 3)
            back_s = server.events("replica_started")[-1]["time"] - killed_at
            time.sleep(1.0)
            client.stop()
            sequences = [event["sequence"] for event in server.events("accepted")]
            assert sorted(sequences) == list(range(40))
            expected, found = without_faults(server), served(server, 40 // GOAL)
            assert (found.version, found.sha256) == (expected.version, expected.sha256)
            assert client.measure().version == found.version
            assert server.process.poll() is None
            # Figures, not tests (docs/results/faults.md); shown by --log-cli-level=INFO
            figures = {"requests": client.requests, "failed": client.failures, "replica_s": back_s}
            log.info("worker node killed: %s", json.dumps(figures))


def kill(pids, after_s):
    """Gives when."""
    time.sleep(after_s)
    at = time.time()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    return at
