"""What every aggregator promises. A new file in fleetfl/aggregators is tested here without an edit."""

import importlib

import numpy as np
import pytest

from fleetfl.plugins import available

pytestmark = pytest.mark.contracts
SIZE = 5


@pytest.fixture(params=available("fleetfl.aggregators"))
def build(request):
    module = importlib.import_module(f"fleetfl.aggregators.{request.param}")
    return lambda: module.Config().build(SIZE)


def feed(aggregator, updates):
    steps = [aggregator.add(d, num_examples=n, staleness=s) for d, n, s in updates]
    return [step for step in steps if step is not None]


def updates(n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=SIZE).astype(np.float32), 8, int(rng.integers(0, 4))) for _ in range(n)
    ]


def test_restore_goes_on_as_if_never_stopped(build):
    whole, first, second = build(), build(), build()
    stream = updates(37)
    expected = feed(whole, stream)
    steps = feed(first, stream[:17])
    second.restore(first.snapshot())
    steps += feed(second, stream[17:])
    assert expected
    np.testing.assert_array_equal(steps, expected)


def test_taking_a_snapshot_changes_nothing(build):
    watched, alone = build(), build()
    stream, steps = updates(37), []
    for update in stream:
        steps += feed(watched, [update])
        watched.snapshot()
    np.testing.assert_array_equal(steps, feed(alone, stream))


def test_a_snapshot_stays_as_it_was_taken(build):
    aggregator, stream = build(), updates(37)
    feed(aggregator, stream[:17])
    state = aggregator.snapshot()
    expected = feed(aggregator, stream[17:])
    restored = build()
    restored.restore(state)
    feed(restored, stream[17:])
    aggregator.restore(state)
    np.testing.assert_array_equal(feed(aggregator, stream[17:]), expected)


def test_stale_update_never_counts_more_than_a_fresh_one(build):
    def size_of_step(staleness):
        return np.linalg.norm(feed(build(), [(np.ones(SIZE, np.float32), 8, staleness)] * 100)[0])

    sizes = [size_of_step(s) for s in range(6)]
    assert sizes == sorted(sizes, reverse=True)


def test_deltas_are_left_as_they_are(build):
    delta = np.ones(SIZE, np.float32)
    delta.flags.writeable = False  # as arrays that crossed Ray are
    feed(build(), [(delta, 8, 0)] * 100)


def test_steps_are_float32_and_never_changed_afterwards(build):
    aggregator = build()
    first, *_ = feed(aggregator, updates(100))
    copy = first.copy()
    feed(aggregator, updates(100, seed=1))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, copy)
