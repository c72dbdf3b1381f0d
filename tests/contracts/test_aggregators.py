"""What every aggregator promises. A new file in fleetfl/aggregators is tested here without an edit."""

import importlib

import numpy as np
import pytest

from fleetfl.aggregators import Declined
from fleetfl.plugins import available
from fleetfl.storage.checkpoints import Checkpoints

pytestmark = pytest.mark.contracts
SIZE = 5


@pytest.fixture(params=available("fleetfl.aggregators"))
def build(request):
    module = importlib.import_module(f"fleetfl.aggregators.{request.param}")
    return lambda: Server(module.Config().build(SIZE))


class Server:
    """As the Coordinator does: each step makes a version, and the aggregator is told of it."""

    def __init__(self, aggregator):
        self.aggregator, self.version, self.vector = aggregator, 0, np.zeros(SIZE, np.float32)
        aggregator.released(self.vector)

    def feed(self, updates):
        """The changes of all steps."""
        changes = []
        for delta, vehicle, num_examples, staleness in updates:
            about = {"vehicle": vehicle, "num_examples": num_examples}
            late = min(staleness, self.version)
            try:
                step = self.aggregator.add(delta, **about, staleness=late)
            except Declined:
                continue
            if step is not None:
                changes.append(step.change)
                self.version, self.vector = self.version + 1, self.vector + step.change
                self.aggregator.released(self.vector)
        return changes

    def snapshot(self):
        return {"version": self.version, "vector": self.vector, "a": self.aggregator.snapshot()}

    def restore(self, state):
        self.version, self.vector = state["version"], state["vector"]
        self.aggregator.restore(state["a"])


def updates(n, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (
            rng.normal(size=SIZE).astype(np.float32),
            f"v{rng.integers(20)}",
            int(rng.integers(1, 9)),
            int(rng.integers(0, 4)),
        )
        for _ in range(n)
    ]


def test_restore_goes_on_as_if_never_stopped(build, tmp_path):
    """By way of a file, as after a crash."""
    whole, first, second = build(), build(), build()
    stream = updates(97)
    expected = whole.feed(stream)
    changes = first.feed(stream[:37])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(37, first.snapshot())
    found = checkpoints.newest()
    assert found is not None
    second.restore(found[1])
    assert second.aggregator.buffered == first.aggregator.buffered
    changes += second.feed(stream[37:])
    assert expected
    np.testing.assert_array_equal(changes, expected)


def test_taking_a_snapshot_changes_nothing(build):
    watched, alone = build(), build()
    stream, changes = updates(97), []
    for update in stream:
        changes += watched.feed([update])
        watched.snapshot()
    np.testing.assert_array_equal(changes, alone.feed(stream))


def test_a_snapshot_stays_as_it_was_taken(build):
    server, stream = build(), updates(97)
    server.feed(stream[:37])
    state = server.snapshot()
    expected = server.feed(stream[37:])
    restored = build()
    restored.restore(state)
    restored.feed(stream[37:])
    server.restore(state)
    np.testing.assert_array_equal(server.feed(stream[37:]), expected)


def test_stale_update_never_counts_more_than_a_fresh_one(build):
    """A hundred releases in which nothing moved, then as many equal updates as the first step takes."""

    def size_of_step(staleness):
        server = build()
        for _ in range(100):
            server.version += 1
            server.aggregator.released(server.vector)
        late = [(np.ones(SIZE, np.float32), f"v{n}", 8, staleness) for n in range(100)]
        return max([np.linalg.norm(change) for change in server.feed(late)[:1]], default=0.0)

    sizes = [size_of_step(s) for s in range(6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0


def test_deltas_are_left_as_they_are(build):
    delta = np.ones(SIZE, np.float32)
    delta.flags.writeable = False  # as arrays that crossed Ray are
    build().feed([(delta, f"v{n}", 8, 0) for n in range(100)])


def test_steps_are_float32_and_never_changed_afterwards(build):
    server = build()
    first, *_ = server.feed(updates(100))
    copy = first.copy()
    server.feed(updates(100, seed=1))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, copy)


def test_a_step_says_how_stale_its_updates_were(build):
    """As many of them as came since the last step, a step of one kind after so many, of another after one."""
    server, told, taken = build(), [], []
    for delta, vehicle, num_examples, _ in updates(100):
        late = 0 if server.version == 0 else len(taken) % 2
        about = {"vehicle": vehicle, "num_examples": num_examples, "staleness": late}
        try:
            step = server.aggregator.add(delta, **about)
        except Declined:
            continue
        taken.append(late)
        assert server.aggregator.buffered == (0 if step else len(taken) - len(told))
        if step is not None:
            told += step.staleness
            assert told == taken
            server.version += 1
            server.aggregator.released(server.vector)
    assert told


@pytest.mark.parametrize("delta", [np.ones(SIZE - 1, np.float32), np.ones(SIZE)])
def test_an_update_that_does_not_fit_changes_nothing(build, delta):
    server = build()
    with pytest.raises(ValueError, match=r"expected float32 \(5,\)"):
        server.aggregator.add(delta, vehicle="v", num_examples=1, staleness=0)
    assert server.aggregator.buffered == 0
    np.testing.assert_array_equal(server.feed(updates(50)), build().feed(updates(50)))
