"""The clock of a server's gateway, aggregator and replicas jumps while updates come; monotonic time goes on.

Ray's own processes keep the right time: with libfaketime in them they do not start.
"""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import running_server
from tests.cluster.test_recovery import GOAL, Vehicle, frames, served, without_faults

pytestmark = pytest.mark.slow
DAY_S = 86_400


@pytest.fixture
def jump(tmp_path, monkeypatch):
    """Set the clocks of a server that is started from now on so many seconds from the right time."""
    libraries = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))
    assert libraries, "libfaketime is not installed; .ci/system-packages does it"
    offset = tmp_path / "offset"

    def jumped(by_s):
        # Replaced at once: one that is half written would be another time.
        offset.with_suffix(".new").write_text(f"{by_s:+d}")
        offset.with_suffix(".new").replace(offset)

    jumped(0)
    faked = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    # What `ray job submit` hands to a driver: the environment of its actors.
    job = {"runtime_env": {"env_vars": faked}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    return jumped


def test_a_clock_that_jumps_loses_nothing_and_counts_nothing_twice(tmp_path, model_config, jump):
    """A day on, a day back, right again; then so far on that the journal is past its time."""
    layout = model_config.build().layout
    sent = list(frames(layout, "v1", 60))
    settings = (f"server.aggregator.goal={GOAL}", f"server.journal.keep_s={100 * DAY_S}")
    with running_server(tmp_path, *settings) as server:
        vehicle = Vehicle(server, "v1")

        async def jumping():
            for by_s in (DAY_S, -DAY_S, 0):
                await asyncio.sleep(2.5)
                jump(by_s)

        async def scenario():
            await asyncio.gather(vehicle.drive(sent, every_s=0.2), jumping())

        asyncio.run(scenario())
        assert set(vehicle.receipts) == set(range(60))
        accepted = server.events("accepted")
        assert sorted(event["sequence"] for event in accepted) == list(range(60))
        hours = {round((event["time"] - time.time()) / 3600) for event in accepted}
        assert hours == {-24, 0, 24}, "each jump was seen"
        expected, found = without_faults(server), served(server, 60 // GOAL)
        assert (found.version, found.sha256) == (expected.version, expected.sha256)
        jump(400 * DAY_S)
        again = Vehicle(server, "v1")
        asyncio.run(again.drive(sent, every_s=0.05))
        assert {verdict for each in again.receipts.values() for verdict in each} == {"duplicate"}
        assert served(server, 60 // GOAL).sha256 == expected.sha256
        assert server.process.poll() is None
