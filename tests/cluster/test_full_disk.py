"""A real server whose disk is full, and its aggregator killed meanwhile: it says so and comes back."""

import asyncio
import os
import signal
import time
import urllib.request

import pytest

from actors.monitoring.status import look, summary
from tests.cluster.conftest import running_server
from tests.cluster.test_recovery import Vehicle, frames
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.cluster
PATIENCE_S = 90.0


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.2)


def test_a_server_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path, model_config):
    sent = list(frames(model_config.build().layout, "v1", 10))
    with (
        small_disk(tmp_path / "state", 32) as disk,
        running_server(tmp_path, "server.aggregator.goal=5", has_endpoint=False) as server,
    ):
        url, vehicle = server.monitor_url, Vehicle(server, "v1")

        def about(part):
            return summary(look(url))[part]

        def is_killing_noticed():
            """It may be back before anybody looks: reading its journal takes no room."""
            aggregator = about("aggregator")
            return not aggregator["is_up"] or aggregator["restarts"] >= 1

        async def scenario():
            await vehicle.drive(sent[:4], every_s=0)
            ballast = fill(disk)
            driving = asyncio.create_task(vehicle.drive(sent, every_s=0.05))
            await asyncio.to_thread(until, lambda: not about("gateways")[0]["is_keeping"])
            os.kill(server.events("aggregator_started")[-1]["pid"], signal.SIGKILL)
            await asyncio.to_thread(until, is_killing_noticed)
            await asyncio.sleep(3.0)
            num_receipts = len(vehicle.receipts)
            ballast.unlink()
            await driving
            return num_receipts

        assert asyncio.run(scenario()) < len(sent)
        assert set(vehicle.receipts) == set(range(len(sent)))
        counted = [e["sequence"] for e in server.events("accepted")]
        assert len(counted) == len(set(counted))
        until(lambda: about("aggregator")["version"] == 2)
        page = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
        assert 'fleetfl_restarts_total{part="aggregator"} 1.0' in page
        assert 'fleetfl_journal_keeps{part="gateway 0"} 1.0' in page
        assert server.process.poll() is None
