"""The server's judgement: what is counted, what is refused and why."""

import numpy as np
import pytest

from fleetfl.aggregators import Aggregator, Declined, Step
from fleetfl.aggregators.fedbuff import Config
from fleetfl.closed_form import Config as HeadConfig
from fleetfl.closed_form import SufficientStatistics, features_of
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator, Refusal
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
        clip=None,
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


def test_an_update_near_float32s_limit_is_none(coordinator, update):
    """3e38 is finite; its square is not. 1e9 is a number like any other and no update of a model near 1."""
    for number, (value, says) in enumerate([(3e38, "norm inf"), (1e9, "norm 2.24e+09")]):
        outcome = coordinator.submit(update(np.full(5, value), sequence=number, vehicle="v7"))
        assert (outcome.verdict, outcome.reason) == ("refused", Refusal.SIZE)
        assert says in outcome.detail
    assert (coordinator.aggregator.buffered, coordinator.ledger.entries) == (0, {})


class Picky(Aggregator):
    """Sums three updates; a step with a 7 in it is none."""

    goal = 3

    def __init__(self, unfit=7.0):
        self.held, self.unfit = [], unfit

    @property
    def buffered(self):
        return len(self.held)

    def add(self, delta, *, vehicle, num_examples, staleness):
        self.held = [*self.held, delta]
        if len(self.held) < self.goal:
            return None
        step, self.held = Step(np.sum(self.held, axis=0), (0,) * self.goal), []
        if self.unfit in step.change:
            raise RuntimeError("a step of seven")
        return step

    def snapshot(self):
        return {"held": self.held}

    def restore(self, state):
        self.held = state["held"]


def test_who_completes_a_step_that_fails_is_refused_and_the_others_stay(update):
    """1 + 2 + 4 is seven; 1 + 2 + 3 is six, and was told of all three."""
    coordinator = new_coordinator(aggregator=Picky())
    values = {"v1": 1, "v2": 2, "mallory": 4, "v3": 3}
    outcomes = [
        coordinator.submit(update(np.full(5, value), vehicle=vehicle, codec="float32"))
        for vehicle, value in values.items()
    ]
    assert [o.verdict for o in outcomes] == ["accepted", "accepted", "refused", "accepted"]
    assert (outcomes[2].reason, outcomes[2].detail) == (
        Refusal.STEP,
        "RuntimeError: a step of seven",
    )
    assert outcomes[3].released
    np.testing.assert_array_equal(coordinator.params, np.full(5, 6, np.float32))
    assert [each.vehicle for each in coordinator.made_of] == ["v1", "v2", "v3"]
    assert not coordinator.ledger.knows("mallory", "b", 0)


def test_a_step_beyond_any_sense_is_no_release(update):
    """The optimizer makes 4,000 of each: more than a thousand times a model of ones has."""
    coordinator = Coordinator(
        np.ones(5, np.float32),
        LAYOUT,
        Config(goal=2).build(5),
        OptimizerConfig(learning_rate=4000).build(5),
        release_codec=Int8(),
        clip=None,
    )
    assert coordinator.submit(update(np.full(5, 0.01), vehicle="v1")).verdict == "accepted"
    params = coordinator.params
    outcome = coordinator.submit(update(np.full(5, 2), vehicle="v2"))
    assert (outcome.reason, coordinator.version) == (Refusal.STEP, 0)
    assert "version 1: norm" in outcome.detail
    np.testing.assert_array_equal(coordinator.params, params)
    assert coordinator.submit(update(np.full(5, 0.01), vehicle="v3")).released
    assert [each.vehicle for each in coordinator.made_of] == ["v1", "v3"]


def test_a_buffer_that_fails_with_everybody_is_dropped_and_the_fleet_goes_on(update):
    """The unfit one came first: whoever completes the step is refused, until three have been."""
    coordinator = new_coordinator(aggregator=Picky(unfit=9.0))

    def submit(vehicle, value, sequence=0):
        delta = np.full(5, value)
        return coordinator.submit(
            update(delta, vehicle=vehicle, sequence=sequence, codec="float32")
        )

    submit("mallory", 7), submit("v1", 1)
    refused = [submit(vehicle, 1) for vehicle in ("v2", "v3", "v4")]
    assert {outcome.reason for outcome in refused} == {Refusal.STEP}
    assert "2 updates of this step are dropped" in refused[-1].detail
    assert (coordinator.aggregator.buffered, coordinator.pending) == (0, [])
    restored = new_coordinator(aggregator=Picky(unfit=9.0))
    restored.restore(coordinator.snapshot())
    for number, vehicle in enumerate(("v2", "v3", "v4"), 1):
        outcome = submit(vehicle, 1, number)
    assert outcome.released


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


HEADED = Layout((("blocks.lora_a", (2,)), ("head.bias", (2,)), ("head.weight", (2, 3))))


def sums_update(make_update, start, number, **fields):
    """Sums over 40 frames of two classes, as vehicle v<number> would send them."""
    rng = np.random.default_rng(number)
    labels = rng.integers(0, 2, 40)
    features = rng.normal(0, 1, (40, 3)) + 3 * np.eye(2, 3)[labels]
    body = SufficientStatistics.of(features, labels, 2).packed(features_of(start, HEADED))
    given = {"vehicle": f"v{number}", "body": body, "num_examples": 40, **fields}
    return make_update(layout=HEADED.fingerprint, codec="feature_sums", **given)


def headed(vehicles):
    return Coordinator(
        np.arange(HEADED.size, dtype=np.float32),
        HEADED,
        Config(goal=1).build(HEADED.size),
        OptimizerConfig().build(HEADED.size),
        release_codec=Int8(),
        head=None if vehicles is None else HeadConfig(vehicles=vehicles),
    )


def test_sums_of_enough_vehicles_release_a_head_to_the_bit(make_update):
    coordinator = headed(vehicles=2)
    start = coordinator.params
    first = coordinator.submit(sums_update(make_update, start, 1))
    again = coordinator.submit(sums_update(make_update, start, 1))
    assert (first.verdict, first.released, again.verdict) == ("accepted", False, "duplicate")
    # A second boot of the same vehicle: its sums take the place of the first ones.
    assert not coordinator.submit(sums_update(make_update, start, 1, boot="c")).released
    second = coordinator.submit(sums_update(make_update, start, 2))
    assert (second.verdict, second.released, second.version) == ("accepted", True, 1)
    assert [each.vehicle for each in coordinator.made_of] == ["v1", "v2"]
    tensors = HEADED.unflatten(coordinator.published.vector)
    np.testing.assert_array_equal(tensors["blocks.lora_a"], [0, 1])
    assert (tensors["head.weight"].argmax(axis=0)[:2] == [0, 1]).all()
    np.testing.assert_array_equal(coordinator.params, coordinator.published.vector)
    # One who comes later is taken, and no head is released again.
    late = coordinator.submit(sums_update(make_update, start, 3))
    assert (late.verdict, late.released) == ("accepted", False)
    # Nor is anybody's body, 36 KB for the shipped model, written into every checkpoint from now on.
    assert coordinator.snapshot()["head"]["bodies"] == []
    assert coordinator.snapshot()["in_head"] == []


def test_sums_are_refused_where_none_are_taken_or_of_other_features(make_update):
    coordinator = headed(vehicles=None)
    outcome = coordinator.submit(sums_update(make_update, coordinator.params, 1))
    assert (outcome.reason, "closed_form" in outcome.detail) == (Refusal.DECLINED, True)
    coordinator = headed(vehicles=2)
    outcome = coordinator.submit(sums_update(make_update, coordinator.params + 1, 1))
    assert (outcome.reason, "features" in outcome.detail) == (Refusal.BODY, True)


def test_no_head_takes_the_place_of_one_whose_features_were_trained_on(make_update):
    coordinator = headed(vehicles=1)
    start = coordinator.params
    delta = np.ones(HEADED.size)
    assert coordinator.submit(make_update(delta, layout=HEADED.fingerprint)).released
    outcome = coordinator.submit(sums_update(make_update, start, 2))
    assert (outcome.verdict, outcome.reason, outcome.version) == ("refused", Refusal.DECLINED, 1)


def test_sums_survive_a_restart_to_the_bit(make_update):
    begun, whole = headed(vehicles=2), headed(vehicles=2)
    start = whole.params
    for coordinator in (begun, whole):
        coordinator.submit(sums_update(make_update, start, 1))
    resumed = headed(vehicles=2)
    resumed.restore(begun.snapshot())
    for coordinator in (resumed, whole):
        assert coordinator.submit(sums_update(make_update, start, 2)).released
    assert resumed.published.sha256 == whole.published.sha256
    assert resumed.made_of == whole.made_of


def test_updates_of_another_lineage_are_refused_and_of_a_former_name_are_not(coordinator, update):
    """Numbers alone would fit. One that does not say, from an older agent, is judged by its number."""
    coordinator.published.generation = "one"
    other = coordinator.submit(update(generation="two"))
    assert (other.verdict, other.reason) == ("refused", Refusal.GENERATION)
    assert other.detail == "generation two, expected one"
    coordinator.published.rename("three")
    renamed = new_coordinator()
    renamed.restore(coordinator.snapshot())
    said = ("one", "three", "")
    outcomes = [renamed.submit(update(generation=n, sequence=i)) for i, n in enumerate(said)]
    assert [o.verdict for o in outcomes] == ["accepted"] * 3


def test_a_version_that_a_former_generation_never_had_here_is_no_base(coordinator, update):
    """Its name ended at version 0 here: its version 1 is another one than ours that has this number."""
    coordinator.published.generation = "1-a"
    coordinator.published.rename("2-b")
    coordinator.published.advance(np.ones(coordinator.layout.size, np.float32))
    said = [("1-a", 1), ("1-a", 0), ("2-b", 1)]
    outcomes = [
        coordinator.submit(
            update(generation=name, base_version=base, sequence=base + 10 * len(name))
        )
        for name, base in said
    ]
    assert outcomes[0].reason == Refusal.FUTURE
    assert outcomes[0].detail == "base version 1, newest is 0"
    assert outcomes[1].verdict == "accepted"


def test_an_update_from_other_bits_of_its_base_version_is_refused(coordinator, update):
    digest = coordinator.published.sha256[:8]
    said = (digest, b"", b"8 others", digest[:3])
    outcomes = [
        coordinator.submit(update(base_sha256=base, sequence=n)) for n, base in enumerate(said)
    ]
    assert [o.reason for o in outcomes] == [None, None, Refusal.BASE, Refusal.BASE]
    assert outcomes[2].detail == "base version 0 has other bits here"


def test_releases_say_how_stale_an_update_may_be(coordinator):
    assert coordinator.published.since(-1)[0].max_staleness == 3
