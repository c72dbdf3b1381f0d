"""What every server optimizer promises. A new file in fleetfl/server_optimizers is tested here by itself."""

import importlib

import numpy as np
import pytest

from fleetfl.aggregators import Step
from fleetfl.plugins import available
from fleetfl.storage.checkpoints import Checkpoints

pytestmark = pytest.mark.contracts
SIZE = 5


@pytest.fixture(params=available("fleetfl.server_optimizers"))
def build(request):
    module = importlib.import_module(f"fleetfl.server_optimizers.{request.param}")
    return lambda: module.Config().build(SIZE)


def steps(n):
    rng = np.random.default_rng(0)
    return [
        Step(rng.normal(size=SIZE).astype(np.float32), tuple(rng.integers(0, 4, 3).tolist()))
        for _ in range(n)
    ]


def walk(optimizer, stream, params=None):
    """All params on the way, float32 [N, P]."""
    params = np.zeros(SIZE, np.float32) if params is None else params
    passed = []
    for step in stream:
        params = optimizer.apply(params, step)
        passed.append(params)
    return np.stack(passed)


def test_restore_goes_on_as_if_never_stopped(build, tmp_path):
    """By way of a file, as after a crash."""
    stream = steps(30)
    expected = walk(build(), stream)
    first, second, checkpoints = build(), build(), Checkpoints(tmp_path)
    begun = walk(first, stream[:13])
    checkpoints.write(13, first.snapshot())
    found = checkpoints.newest()
    assert found is not None
    second.restore(found[1])
    np.testing.assert_array_equal(walk(second, stream[13:], begun[-1]), expected[13:])


def test_later_steps_do_not_change_a_snapshot(build):
    """So a step without a finite result can be taken back."""
    optimizer, stream = build(), steps(30)
    begun = walk(optimizer, stream[:13])
    state = optimizer.snapshot()
    expected = walk(optimizer, stream[13:], begun[-1])
    optimizer.restore(state)
    np.testing.assert_array_equal(walk(optimizer, stream[13:], begun[-1]), expected)


def test_params_and_step_are_left_as_they_are(build):
    params, change = np.ones(SIZE, np.float32), np.full(SIZE, 2, np.float32)
    params.flags.writeable = change.flags.writeable = False
    optimizer = build()
    for _ in range(4):
        optimizer.apply(params, Step(change, (0,)))


def test_params_are_float32_and_go_the_way_of_the_step(build):
    """A change points downhill: it is added."""
    change = np.float32([1, -2, 3, -4, 5])
    params = build().apply(np.zeros(SIZE, np.float32), Step(change, (0,)))
    assert params.dtype == np.float32
    np.testing.assert_array_equal(np.sign(params), np.sign(change))
