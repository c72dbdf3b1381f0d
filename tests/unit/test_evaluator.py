"""The evaluator's scores go into the log of events and beside the release that has those bits."""

import asyncio

import msgspec
import numpy as np
import pytest

from actors.config import ServerConfig
from actors.evaluator import Evaluator
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.evaluation.held_out import HeldOut
from fleetfl.events.event_log import EventReader
from fleetfl.protocol.messages import Snapshot
from fleetfl.registry.registry import Scores
from fleetfl.releases.generations import order_of
from fleetfl.releases.versions import Published
from sim import world

pytestmark = pytest.mark.unit


@pytest.fixture
def config(tmp_path, model_config):
    images = world.render(np.array([0, 1, 0, 0]), seed=1)
    conditions = np.array(["fog", "fog", "rain", "rain"])
    HeldOut(images, np.array([0, 1, 0, 0]), conditions).save(tmp_path / "held_out.npz")
    return ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": model_config.model_dump(),
            "transport": {"kind": "memory"},
            "state": tmp_path,
            "held_out": tmp_path / "held_out.npz",
        }
    )


def evaluated(config):
    """The snapshot that an evaluator was given, once it has said that it scored it."""
    model = config.model.build()
    model.head.bias.data[0] = 1.0  # and so class 0, whatever is in the picture
    snapshot = Published(model.vector(), model.layout, Float32(), generation="one").whole()

    async def wait_for_version(than):
        while than == order_of(snapshot):
            await asyncio.sleep(3600)
        return snapshot

    async def scenario():
        evaluator = Evaluator(config, wait_for_version)
        running = asyncio.create_task(evaluator.run())
        while not evaluations(config):
            await asyncio.sleep(0.01)
            assert not running.done(), running.exception()
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    return snapshot


def evaluations(config):
    path = config.state / "events.jsonl"
    events = EventReader(path).read() if path.exists() else []
    return [event for event in events if event["event"] == "evaluated"]


def test_scores_are_kept_beside_the_release(config):
    """Class 0 for all: right in 3 of 4; in fog 1 of 2, in rain 2 of 2."""
    snapshot = evaluated(config)
    expected = Scores(snapshot.sha256.hex(), 0.75, {"fog": 0.5, "rain": 1.0})
    assert dict(config.releases.all_scores("one")) == {0: expected}


def test_a_release_that_cannot_be_scored_is_said_and_the_next_one_is(config):
    """The first body is none, the second has no finite answer: 0 of 4 are right, not the first class's 3."""
    layout = config.model.build().layout
    wild = np.full(layout.size, 3e38, np.float32)
    bad = Snapshot("one", 0, bytes(8), bytes(32), "float32", b"short")
    good = Published(wild, layout, Float32(), generation="one").whole()
    snapshots = [bad, msgspec.structs.replace(good, version=1)]

    async def wait_for_version(than):
        while than[1] >= len(snapshots) - 1:
            await asyncio.sleep(3600)
        return snapshots[than[1] + 1]

    async def scenario():
        running = asyncio.create_task(Evaluator(config, wait_for_version).run())
        while not evaluations(config):
            await asyncio.sleep(0.01)
            assert not running.done(), running.exception()
        running.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    events = EventReader(config.state / "events.jsonl").read()
    assert [e["version"] for e in events if e["event"] == "evaluation_failed"] == [0]
    (evaluated,) = evaluations(config)
    assert (evaluated["version"], evaluated["accuracy"]) == (1, 0.0)


def test_scores_that_cannot_be_kept_are_said_and_evaluation_goes_on(config, caplog):
    config.releases.folder.write_bytes(b"")
    evaluated(config)
    assert "scores of version 0 are only in the log of events" in caplog.text
