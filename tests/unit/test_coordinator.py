"""The server's judgement: what is counted, what is refused and why."""

import numpy as np
import pytest

from fleetfl.aggregators import Aggregator, Declined, Step
from fleetfl.aggregators.fedbuff import Config
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordinator import Coordinator, Refusal
from fleetfl.server_optimizers.sgd import Config as OptimizerConfig
from fleetfl.vectors import Layout, digest

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (5,)),))


@pytest.fixture
def coordinator():
    return new_coordinator()


def new_coordinator(goal=2, max_staleness=3, aggregator=None):
    return Coordinator(
        np.zeros(5, np.float32),
        LAYOUT,
        aggregator or Config(goal=goal).build(5),
        OptimizerConfig(momentum=0.5).build(5),
        release_codec=Int8(),
        max_staleness=max_staleness,
    )


@pytest.fixture
def update(make_update):
    return lambda *a, **f: make_update(*a, **{"layout": LAYOUT.fingerprint, **f})


def test_goal_updates_release_a_version(coordinator, update):
    """Two fresh deltas of 1 and 3: mean 2, rate 1, so params go from 0 to 2."""
    first = coordinator.submit(update(np.full(5, 1), sequence=0))
    second = coordinator.submit(update(np.full(5, 3), sequence=1))
    assert (first.verdict, first.released, first.version) == ("accepted", False, 0)
    assert (second.verdict, second.released, second.version) == ("accepted", True, 1)
    np.testing.assert_array_equal(coordinator.params, np.full(5, 2, np.float32))


def test_a_repeat_counts_once(coordinator, update):
    coordinator.submit(update(sequence=4))
    assert coordinator.submit(update(sequence=4)).verdict == "duplicate"
    assert coordinator.version == 0
    # Another boot of the same vehicle starts its numbers anew.
    assert coordinator.submit(update(sequence=4, boot="c")).released


def test_an_older_sequence_that_comes_late_counts(coordinator, update):
    coordinator.submit(update(sequence=5))
    assert coordinator.submit(update(sequence=3)).verdict == "accepted"


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"layout": b"another1"}, Refusal.LAYOUT, b"another1".hex()),
        ({"base_version": 1}, Refusal.FUTURE, "base version 1, newest is 0"),
        ({"codec": "float32", "body": b"junk"}, Refusal.BODY, "zstd"),
        ({"delta": np.ones(4)}, Refusal.BODY, "expected 20"),
    ],
)
def test_refusals_name_the_value(coordinator, update, fields, reason, says):
    outcome = coordinator.submit(update(**fields))
    assert (outcome.verdict, outcome.reason) == ("refused", reason)
    assert says in outcome.detail
    assert coordinator.aggregator.buffered == 0


def test_nan_is_refused(coordinator, update):
    from fleetfl.codecs import squeeze

    body = squeeze(np.array([0, 1, np.nan, 1, 1], "<f4").tobytes(), 3)
    outcome = coordinator.submit(update(body=body))
    assert outcome.reason is Refusal.NOT_FINITE
    assert "value 2 of 5 is nan" in outcome.detail
    assert np.isfinite(coordinator.params).all()


def test_unknown_codec_is_refused_and_never_imported(coordinator, make_update):
    from msgspec.structs import replace

    update = replace(make_update(layout=LAYOUT.fingerprint), codec="os")
    outcome = coordinator.submit(update)
    assert outcome.reason is Refusal.BODY
    assert "'os'" in outcome.detail


def test_too_stale_is_refused(update):
    coordinator = new_coordinator(goal=1, max_staleness=3)
    for sequence in range(4):
        coordinator.submit(update(sequence=sequence, base_version=sequence))
    assert coordinator.submit(update(sequence=9, base_version=1)).staleness == 3
    outcome = coordinator.submit(update(sequence=10, base_version=1))
    assert (outcome.reason, outcome.staleness) == (Refusal.STALE, 4)


def arrivals(update, n=60):
    rng = np.random.default_rng(3)
    return [
        update(rng.normal(size=5), sequence=i, vehicle=f"v{rng.integers(4)}", codec="int8")
        for i in range(n)
    ]


def test_same_arrivals_give_the_same_bits(update):
    ends = []
    for _ in range(2):
        coordinator = new_coordinator(max_staleness=100)
        for one in arrivals(update):
            assert coordinator.submit(one).verdict == "accepted"
        ends.append(digest(coordinator.params))
    assert ends[0] == ends[1]


def test_restore_goes_on_as_if_never_stopped(update):
    whole, first, second = (new_coordinator(max_staleness=100) for _ in range(3))
    stream = arrivals(update)
    for one in stream:
        whole.submit(one)
    for one in stream[:31]:
        first.submit(one)
    second.restore(first.snapshot())
    assert second.submit(stream[30]).verdict == "duplicate"
    for one in stream[31:]:
        second.submit(one)
    assert digest(second.params) == digest(whole.params)
    assert digest(second.published.vector) == digest(whole.published.vector)
    assert second.version == whole.version


def test_everyone_gets_near_what_the_server_optimizes(update):
    coordinator = new_coordinator(max_staleness=100)
    for one in arrivals(update):
        coordinator.submit(one)
    assert coordinator.published.version == coordinator.version == 30
    np.testing.assert_allclose(coordinator.published.vector, coordinator.params, atol=0.05)


def test_step_without_a_finite_result_is_dropped_whole(update):
    """3e38 twice into params of 3e38: the sum is infinite. The next step goes on from before."""
    coordinator = new_coordinator(goal=1)
    assert coordinator.submit(update(np.full(5, 3e38), sequence=0)).released
    params, velocity = coordinator.params, coordinator.optimizer.snapshot()["velocity"]
    outcome = coordinator.submit(update(np.full(5, 3e38), sequence=1))
    assert (outcome.verdict, outcome.reason, outcome.version) == ("refused", Refusal.STEP, 1)
    assert "version 2: value 0 of 5 is inf" in outcome.detail
    np.testing.assert_array_equal(coordinator.params, params)
    np.testing.assert_array_equal(coordinator.optimizer.snapshot()["velocity"], velocity)
    assert coordinator.submit(update(np.full(5, -3e38), sequence=2)).released


class OneRound(Aggregator):
    """Takes fresh updates only, and writes down what it is told."""

    buffered = 0

    def __init__(self):
        self.added, self.versions = [], []

    def add(self, delta, *, vehicle, num_examples, staleness):
        if staleness:
            raise Declined(f"version {staleness} back")
        self.added.append((vehicle, num_examples))
        return Step(delta, (staleness,))

    def released(self, vector):
        self.versions.append(vector.tolist())


def test_what_the_aggregator_declines_is_refused_and_may_come_again(update):
    """It learns each update's vehicle, and every version as it was published, the first one too."""
    aggregator = OneRound()
    coordinator = new_coordinator(aggregator=aggregator)
    assert coordinator.submit(update(np.full(5, 127), sequence=0, vehicle="v7")).released
    late = update(np.full(5, 127), sequence=1, vehicle="v8")
    for _ in range(2):
        outcome = coordinator.submit(late)
        assert (outcome.verdict, outcome.reason) == ("refused", Refusal.DECLINED)
        assert outcome.detail == "version 1 back"
    assert [vehicle for vehicle, _ in aggregator.added] == ["v7"]
    assert aggregator.versions == [[0.0] * 5, [127.0] * 5]


def test_ledger_stays_bounded(update):
    from fleetfl.ledger import WINDOW

    coordinator = new_coordinator(goal=10**6)
    for sequence in range(5 * WINDOW):
        coordinator.submit(update(sequence=sequence))
    assert len(coordinator.ledger.seen["v1", "b"]) <= 2 * WINDOW + 1
    assert coordinator.submit(update(sequence=0)).verdict == "duplicate"
