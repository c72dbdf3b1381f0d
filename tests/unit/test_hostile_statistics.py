"""One vehicle's closed-form statistics are lies: refused if no frames have them, else of bounded weight."""

import numpy as np
import pytest

from benchmarks.fuzz_statistics import Fuzzer
from fleetfl import closed_form
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.closed_form import FRACTION_BITS, Config, SufficientStatistics, features_of
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator, Refusal
from fleetfl.server_optimizers.sgd import Config as SGD
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
WIDTH, CLASSES, FRAMES = 8, 3, 200
LAYOUT = Layout((("head.bias", (CLASSES,)), ("head.weight", (CLASSES, WIDTH)), ("w", (4,))))
VECTOR = np.ones(LAYOUT.size, np.float32)
FEATURES = features_of(VECTOR, LAYOUT)
CENTRES = np.random.default_rng(1).normal(size=(CLASSES, WIDTH)) * 2


def frames(seed, num=FRAMES):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, num)
    return CENTRES[labels] + rng.normal(size=(num, WIDTH)), labels


def sums(seed=0, num=FRAMES, shift=0):
    features, labels = frames(seed, num)
    return SufficientStatistics.of(features, (labels + shift) % CLASSES, CLASSES)


def accuracy(vector):
    tensors = LAYOUT.unflatten(vector)
    features, labels = frames(99, 3000)
    logits = features @ tensors["head.weight"].T + tensors["head.bias"]
    assert np.abs(logits).max() < 1e6
    return (logits.argmax(axis=1) == labels).mean()


@pytest.fixture
def submit(make_update):
    def one(server, vehicle, statistics, num=None, **fields):
        update = make_update(
            vehicle=vehicle,
            num_examples=num or statistics.num_examples,
            codec="feature_sums",
            body=statistics.packed(FEATURES),
            layout=LAYOUT.fingerprint,
            **fields,
        )
        return server.submit(update)

    return one


def server(vehicles=8):
    return Coordinator(
        VECTOR,
        LAYOUT,
        FedBuff().build(LAYOUT.size),
        SGD().build(LAYOUT.size),
        release_codec=Int8(),
        head=Config(vehicles=vehicles),
    )


def run(submit, lie=None, first=False):
    coordinator = server()
    names = [f"v{n}" for n in range(7)]
    for seed, name in enumerate(["mallory", *names] if first else [*names, "mallory"]):
        statistics = lie if lie is not None and name == "mallory" else sums(seed)
        assert submit(coordinator, name, statistics).verdict == "accepted"
    assert coordinator.version == 1
    return accuracy(coordinator.published.vector)


def scaled(found, times):
    return SufficientStatistics(found.gram * times, found.cross * times)


def spread():
    """Features thousands of times as long as any backbone's, to drown those of the others."""
    features, labels = frames(50)
    return SufficientStatistics.of(features * 2.0**12, (labels + 1) % CLASSES, CLASSES)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "lie", [sums(50, shift=1), scaled(sums(50, 600, shift=1), 2**20), spread()]
)
def test_labels_rotated_whatever_they_claim_to_weigh_cost_three_points_at_most(submit, lie, first):
    assert run(submit, lie, first) >= run(submit) - 0.03


def raised(gram=(), cross=(), by=1 << FRACTION_BITS):
    """Honest sums with some numbers raised; indices of the gram's triangle, and of the cross."""
    found = sums(7)
    gram_values, cross_values = found.gram.copy(), found.cross.copy()
    for at in gram:
        gram_values[at] += by
    for at in cross:
        cross_values[at] += by
    return SufficientStatistics(gram_values, cross_values)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (raised(gram=[0], by=-(10**6)), "smaller than"),
        (raised(gram=[1], by=10**7), "smaller than"),
        (raised(cross=[(0, 0)], by=2000), "do not add up"),
        (raised(cross=[(WIDTH, 0)]), "add up"),
        (raised(gram=[-1], by=16), "add up"),
        (raised(cross=[(WIDTH, 0), (WIDTH, 0), (WIDTH, 1)], by=-8), "add up"),
        (SufficientStatistics(sums(7).gram, np.roll(sums(7).cross, 1, axis=0)), "add up"),
    ],
)
def test_statistics_that_no_frames_have_are_refused_and_change_nothing(submit, lie, says):
    coordinator = server(vehicles=1)
    outcome = submit(coordinator, "mallory", lie, num=FRAMES)
    assert (outcome.verdict, outcome.reason) == ("refused", Refusal.BODY)
    assert says in outcome.detail
    assert (coordinator.version, coordinator.head.bodies, coordinator.in_head) == (0, {}, {})
    assert submit(coordinator, "good", sums(1)).released


def singular(cls, mean, square):
    """A hundred frames of one class, all alike in one feature, whose square is a little too small."""
    num = 100 << FRACTION_BITS
    gram = np.zeros((WIDTH + 1, WIDTH + 1), np.int64)
    cross = np.zeros((WIDTH + 1, CLASSES), np.int64)
    gram[-1, -1] = cross[-1, cls] = num
    cross[0, cls] = gram[0, -1] = mean * num
    gram[0, 0] = square
    return SufficientStatistics(gram[np.triu_indices(WIDTH + 1)], cross)


def test_two_who_conspire_to_leave_less_than_nothing_stop_no_server(submit):
    """(b) and (c) of the case: the within-class square is -6/16 in all, as much as the shrinkage adds."""
    coordinator = server(vehicles=2)
    mean = 2**16
    for name, lie in (
        ("m1", singular(0, mean, (100 * mean * mean << FRACTION_BITS) - 6)),
        ("m2", singular(1, 0, 0)),
    ):
        outcome = submit(coordinator, name, lie)
        assert outcome.verdict == "accepted"
    assert np.isfinite(coordinator.published.vector).all()
    again = server(vehicles=2)
    again.restore(coordinator.snapshot())
    assert again.published.sha256 == coordinator.published.sha256


def test_statistics_with_which_no_head_can_be_solved_are_not_kept(submit, monkeypatch):
    """Whatever the solver cannot do: the one whose sums came last is refused, the next has its place."""
    coordinator, first = server(vehicles=2), sums(1)
    assert submit(coordinator, "v1", first).verdict == "accepted"
    before = coordinator.head.total.gram.copy()
    with monkeypatch.context() as patched:
        patched.setattr(closed_form, "discriminant", lambda *_, **__: 1 / 0)
        refused = submit(coordinator, "mallory", sums(2))
    assert (refused.reason, coordinator.version) == (Refusal.BODY, 0)
    assert "no head can be solved" in refused.detail
    np.testing.assert_array_equal(coordinator.head.total.gram, before)
    assert list(coordinator.head.bodies) == list(coordinator.head.weights) == ["v1"]
    assert submit(coordinator, "v2", sums(3), sequence=1).released


def test_statistics_that_come_again_after_newer_ones_are_not_taken_back(submit):
    """The ledger may have forgotten them: it is the time of their newest frame that tells."""
    coordinator = server(vehicles=2)
    old = {"captured_from": 100, "captured_to": 200}
    assert submit(coordinator, "v1", sums(1), **old).verdict == "accepted"
    wait_for_version = {"captured_from": 300, "captured_to": 400}
    assert submit(coordinator, "v1", sums(2), boot="c", **wait_for_version).verdict == "accepted"
    coordinator.ledger.forget_before(100)
    outcome = submit(coordinator, "v1", sums(1), **old)
    assert (outcome.verdict, outcome.reason) == ("refused", Refusal.DECLINED)
    assert coordinator.head.total.num_examples == FRAMES


def test_a_banned_vehicle_leaves_the_sums_to_the_bit(submit):
    from fleetfl.protocol.messages import Ban

    banned, never = server(vehicles=3), server(vehicles=3)
    for coordinator, names in ((banned, ("v1", "mallory", "v2")), (never, ("v1", "v2"))):
        for name in names:
            if name == "mallory":
                submit(coordinator, name, sums(50, shift=1))
                coordinator.ban(Ban("x", "mallory", True, "lies"))
            else:
                submit(coordinator, name, sums(int(name[1:])))
    for coordinator in (banned, never):
        assert submit(coordinator, "v3", sums(3)).released
    assert banned.published.sha256 == never.published.sha256
    assert submit(banned, "mallory", sums(51), sequence=9).reason is Refusal.BANNED


def test_a_thousand_hostile_messages_end_in_a_refusal_or_a_head_that_makes_sense():
    """A sample of benchmarks/fuzz_statistics.py, which tries a million."""
    fuzzer = Fuzzer(seed=3)
    for _ in range(1000):
        fuzzer.step()
    assert fuzzer.told["heads"] > 10
    assert fuzzer.told["body"] > 100


def test_a_flood_of_statistics_has_its_places_and_is_not_remembered_for_ever(submit):
    """Each costs a decomposition, and each new boot would be a name in every checkpoint."""
    coordinator = server()
    for number in range(7):
        assert submit(coordinator, f"v{number}", sums(number)).verdict == "accepted"
    flood = [submit(coordinator, "v0", sums(50), boot=f"boot{n}") for n in range(100)]
    assert sum(o.verdict == "accepted" for o in flood) <= 16
    assert flood[-1].reason == Refusal.DECLINED
    assert submit(coordinator, "v7", sums(7)).released
    known = len(coordinator.ledger.entries)
    for number in range(100):
        submit(coordinator, f"v{number % 9}", sums(50), boot=f"late{number}")
    assert len(coordinator.ledger.entries) == known


def test_statistics_of_features_that_a_step_has_changed_are_not_kept(submit):
    """No head can be made of them any more, and each would stay in every checkpoint."""
    coordinator = server()
    assert submit(coordinator, "v0", sums()).verdict == "accepted"
    coordinator.params = coordinator.params + np.float32(1)
    late = [submit(coordinator, f"v{n}", sums(n)) for n in range(1, 20)]
    assert {o.reason for o in late} == {Refusal.DECLINED}
    assert [*coordinator.head.bodies] == [*coordinator.in_head] == ["v0"]
