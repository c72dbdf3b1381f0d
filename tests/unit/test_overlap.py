"""Overlapping trainings are done in one go, and each vehicle has its own result when it is due."""

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from sim import virtual_time
from sim.overlap import Overlap
from vehicle_agent.sensors import Frames
from vehicle_agent.trainer import Assignment, LocalTraining

pytestmark = pytest.mark.unit


def assignment(seed):
    frames = Frames(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int64), 0.0, 1.0)
    return Assignment(np.zeros(1, np.float32), frames, seed, np.zeros(2, np.float32))


def test_what_overlaps_is_trained_at_once_and_arrives_when_it_is_due():
    """0 to 3 s, 1 to 2 s and 2.5 to 4 s: at 2 s the first two are done, at 4 s the third."""
    calls, arrived = [], []

    def train_all(todo):
        calls.append([each.seed for each in todo])
        return [LocalTraining(np.full(1, each.seed), 1, 1, 0.0) for each in todo]

    async def vehicle(overlap, seed, begin_s, seconds):
        await asyncio.sleep(begin_s)
        trained = await overlap.train(assignment(seed), seconds=seconds)
        arrived.append((asyncio.get_running_loop().time(), seed, trained.delta[0]))

    async def fleet():
        overlap = Overlap(train_all)
        flights = [(1, 0.0, 3.0), (2, 1.0, 1.0), (3, 2.5, 1.5)]
        await asyncio.gather(*(vehicle(overlap, *flight) for flight in flights))
        assert not overlap.put_off
        assert not overlap.done

    virtual_time.run(fleet())
    assert calls == [[1, 2], [3]]
    assert arrived == [(2.0, 2, 2), (3.0, 1, 1), (4.0, 3, 3)]


def test_a_vehicle_that_is_gone_leaves_nothing_behind():
    async def fleet():
        overlap = Overlap(lambda todo: [cast(Any, each.seed) for each in todo])
        gone = asyncio.create_task(overlap.train(assignment(1), seconds=5))
        there = asyncio.create_task(overlap.train(assignment(2), seconds=7))
        await asyncio.sleep(1)
        gone.cancel()
        assert cast(Any, await there) == 2
        assert not overlap.put_off
        assert not overlap.done

    virtual_time.run(fleet())
