"""How much of an update is believed: its length, its examples, and what its vehicle gave before."""

import math

import numpy as np
import pytest

from fleetfl.defences.influence import FIRST_EXAMPLES, LATELY, Bounds, Config, norm_of

pytestmark = pytest.mark.unit
PARAMS = np.full(100, 1.0, np.float32)
"""Of norm 10: until three vehicles are known an update has at most 2.5."""


def bounds(turn=4):
    return Bounds(Config(), PARAMS, turn=turn)


def count(bounds, vehicle, norm, examples=100):
    believed = bounds.believed(vehicle, norm, examples)
    bounds.counted(vehicle, believed)
    return believed


def fleet(bounds, num=7, norm=1.0, examples=100, rounds=1):
    for _ in range(rounds):
        for number in range(num):
            count(bounds, f"v{number}", norm * (1 + 0.01 * number), examples)


@pytest.mark.parametrize("size", [1, 5, 2047, 2048, 2049, 300_000])
def test_the_norm_is_that_of_float64(size):
    vector = np.random.default_rng(size).normal(size=size).astype(np.float32)
    assert norm_of(vector) == pytest.approx(np.linalg.norm(vector.astype(float)), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38, 2e19])
def test_what_is_not_finite_or_has_no_square_has_an_infinite_norm(value):
    vector = np.zeros(5000, np.float32)
    vector[4321] = value
    assert norm_of(vector) == math.inf


def test_the_first_updates_are_a_share_of_the_model_whoever_is_first():
    known = bounds()
    first = count(known, "mallory", 1e6)
    assert first.share * 1e6 == pytest.approx(0.25 * 10)
    assert count(known, "v1", 0.5).share == 1.0


def test_no_vehicle_alone_moves_the_median_however_often_it_reports():
    known = bounds()
    fleet(known)
    before = known.believed("v9", 1e6, 1).norm
    for _ in range(500):
        count(known, "mallory", 1e6)
    assert known.believed("v9", 1e6, 1).norm == pytest.approx(before, rel=0.02)
    for _ in range(500):
        count(known, "mallory", 1e-9)
    assert known.believed("v9", 1e6, 1).norm == pytest.approx(before, rel=0.02)


def test_honest_updates_are_left_as_they_are_while_norms_shrink_and_grow():
    """Norms that halve every three rounds, then grow by half a round: nothing is ever clipped."""
    known = bounds()
    for norm in [*np.geomspace(1.0, 0.01, 60), *np.geomspace(0.01, 1.0, 14)]:
        for number in range(8):
            assert count(known, f"v{number}", norm * (1 + 0.05 * number)).share == 1.0


def test_a_fleet_that_stood_still_can_learn_again():
    known = bounds()
    fleet(known, norm=0.0, rounds=3)
    for _ in range(12):
        fleet(known, norm=1.0)
    assert count(known, "v1", 1.0).share == 1.0


def test_a_buffer_filled_by_one_vehicle_is_as_long_as_one_update_may_be():
    """Eight vehicles, four updates a step: all of ten have no more than twice the median."""
    known = bounds()
    fleet(known, num=8)
    lengths = [
        believed.share * 9.0 for believed in (count(known, "mallory", 9.0) for _ in range(10))
    ]
    assert sum(lengths) == pytest.approx(2 * 1.03, rel=0.02)


def test_a_flood_between_honest_updates_gains_nothing():
    """Ten of mallory's after each honest update: together as long as the four others' refill of its share."""
    known, total, honest = bounds(), 0.0, 0.0
    fleet(known, num=7)
    for turn in range(70):
        honest += count(known, f"v{turn % 7}", 1.0).share
        total += sum(count(known, "mallory", 1e3).share * 1e3 for _ in range(10))
    assert honest == 70
    assert total < 70 / 4 * 2 + 4


@pytest.mark.parametrize("num", [1, 2])
def test_fleets_of_one_and_two_lose_nothing(num):
    known = bounds(turn=5)
    for turn in range(200):
        assert count(known, f"v{turn % num}", 1.0).share == 1.0


@pytest.mark.parametrize(("turn", "every"), [(10, 6), (5, 4), (4, 3)])
def test_a_vehicle_several_times_as_fast_as_the_others_loses_nothing(turn, every):
    """It sends each sixth, fourth or third of all updates, of a fleet of forty."""
    known = bounds(turn)
    fleet(known, num=40)
    for number in range(200):
        vehicle = "fast" if number % every == 0 else f"v{number % 40}"
        assert count(known, vehicle, 1.0).share == 1.0


def test_who_is_left_alone_has_the_whole_step_again():
    known = bounds()
    fleet(known)
    shares = [count(known, "v1", 1.0).share for _ in range(LATELY + 20)]
    assert shares[20] == 0.0
    assert shares[-1] == 1.0


def test_examples_are_believed_up_to_half_more_than_is_usual():
    known = bounds()
    assert count(known, "mallory", 1.0, 2**53).num_examples == FIRST_EXAMPLES
    fleet(known, examples=300)
    assert known.believed("mallory", 1.0, 2**53).num_examples == 450
    assert known.believed("v1", 1.0, 350).num_examples == 350
    # Half longer and weighed half more would be more than two updates in one.
    assert known.believed("mallory", 99.0, 2**53).num_examples == pytest.approx(300, rel=0.05)
    assert (
        Bounds(None, PARAMS, turn=4).believed("mallory", 1e6, 2**53).num_examples == FIRST_EXAMPLES
    )


def test_without_a_clip_lengths_are_left_alone():
    known = Bounds(None, PARAMS, turn=4)
    fleet(known)
    assert known.believed("mallory", 1e6, 1).share == 1.0


def test_it_goes_on_from_its_snapshot_as_if_it_never_stopped():
    one, other = bounds(), bounds()
    fleet(one)
    count(one, "mallory", 50.0)
    other.restore(one.snapshot())
    for vehicle, norm in (("v1", 3.0), ("mallory", 8.0), ("new", 1.5)):
        assert count(one, vehicle, norm) == count(other, vehicle, norm)
    assert one.snapshot() == other.snapshot()
