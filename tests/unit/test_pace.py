"""How far a vehicle may get ahead of all others."""

import msgspec
import pytest

from fleetfl.defences.pace import REFILL_S, Pace, TooFarAheadError

pytestmark = pytest.mark.unit
AHEAD = 16


def report(pace, vehicle, at_s=0.0):
    """Whether its update is accepted."""
    try:
        pace.require_place(vehicle, at_s)
    except TooFarAheadError:
        pace.reported(vehicle, at_s, is_accepted=False)
        return False
    pace.reported(vehicle, at_s, is_accepted=True)
    return True


def of_three(at_s=0.0):
    pace = Pace(AHEAD)
    for vehicle in ("v0", "v1", "v2"):
        assert report(pace, vehicle, at_s)
    return pace


def test_a_flood_has_its_places_and_then_one_for_each_report_of_another():
    pace = of_three()
    assert sum(report(pace, "mallory") for _ in range(500)) == AHEAD
    with pytest.raises(TooFarAheadError, match="mallory is 16 updates ahead of all other vehicles"):
        pace.require_place("mallory")
    for vehicle in ("v0", "v1", "v0"):
        assert report(pace, vehicle)
    assert sum(report(pace, "mallory") for _ in range(500)) == 3


def test_reports_that_are_refused_give_others_a_place_and_take_none():
    pace = of_three()
    assert sum(report(pace, "fast") for _ in range(99)) == AHEAD
    pace.reported("late", is_accepted=False)
    assert report(pace, "fast")
    for _ in range(AHEAD):
        pace.reported("late", is_accepted=False)
    assert sum(report(pace, "late") for _ in range(99)) == AHEAD


@pytest.mark.parametrize("num", [1, 2])
def test_fleets_of_one_and_two_never_wait(num):
    pace = Pace(AHEAD)
    assert all(report(pace, f"v{n % num}") for n in range(300))
    assert all(report(pace, "v0") for n in range(300))


def test_who_is_left_alone_goes_on_slowly():
    pace = of_three(at_s=1e9)
    assert sum(report(pace, "v0", 1e9) for _ in range(99)) == AHEAD
    assert sum(report(pace, "v0", 1e9 + REFILL_S / 2) for _ in range(99)) == AHEAD // 2
    assert sum(report(pace, "v0", 1e9 + 9 * REFILL_S) for _ in range(99)) == AHEAD


def test_a_clock_that_goes_back_gives_and_takes_nothing():
    pace = of_three(at_s=1e9)
    assert report(pace, "v0", 5e8)
    assert sum(report(pace, "v0", 5e8) for _ in range(99)) == AHEAD - 1


def test_vehicles_of_any_pace_that_others_keep_up_with_never_wait():
    pace = Pace(AHEAD)
    for number in range(500):
        assert report(pace, "fast" if number % 2 else f"v{number % 40}")


def test_memory_is_bounded_however_many_report():
    pace = Pace(AHEAD)
    for number in range(10_000):
        report(pace, f"v{number}")
    assert len(pace.newest) <= AHEAD
    assert len(pace.heard) == 3


def test_a_restored_one_decides_on_as_if_never_stopped():
    pace, again = of_three(), Pace(AHEAD)
    assert all(report(pace, "v1") for _ in range(9))
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(pace.snapshot())))
    assert sum(report(again, "v1") for _ in range(99)) == sum(report(pace, "v1") for _ in range(99))


def test_without_a_bound_everybody_reports_as_often_as_they_like():
    pace = Pace(None)
    assert all(report(pace, "v0") for _ in range(99))
    assert not pace.newest
