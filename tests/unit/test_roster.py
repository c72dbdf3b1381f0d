"""The roster: what each vehicle last said, through restarts, last wills and what a broker kept."""

import msgspec
import pytest

from actors import roster
from actors.roster import MOST_REFUSED, StatusDiary, VehicleDirectory
from fleetfl.events.event_log import Config
from fleetfl.protocol.messages import Status

pytestmark = pytest.mark.unit


def status(vehicle="v1", boot="b", state="online", version=4, waiting=2):
    return Status(vehicle, boot, state, version, 10, 20, waiting, "", b"")


def will(boot="b"):
    """As the broker has it from the moment when the vehicle connected."""
    return status(boot=boot, state="offline", version=-1, waiting=0)


def test_a_last_will_changes_the_state_and_keeps_what_was_said_before():
    fleet = VehicleDirectory()
    fleet.note(status(), at=5.0)
    fleet.note(will(), at=9.0)
    seen = fleet.sightings["v1"]
    assert (seen.status.state, seen.status.version, seen.status.waiting) == ("offline", 4, 2)
    assert seen.heard_at == 9.0


def test_the_last_will_of_a_process_before_does_not_put_its_successor_offline():
    fleet = VehicleDirectory()
    fleet.note(status(boot="old"), at=1.0)
    fleet.note(status(boot="new"), at=2.0)
    fleet.note(will(boot="old"), at=3.0)
    assert fleet.sightings["v1"].status.state == "online"
    fleet.note(will(boot="new"), at=4.0)
    assert fleet.sightings["v1"].status.state == "offline"


def test_what_the_broker_kept_is_no_sign_of_life():
    fleet = VehicleDirectory()
    fleet.note(status(), at=5.0, retained=True)
    assert fleet.sightings["v1"].heard_at is None
    fleet.hear("v1", at=7.0)
    fleet.note(status(), at=9.0, retained=True)
    assert fleet.sightings["v1"].heard_at == 7.0
    fleet.hear("stranger", at=7.0)
    assert set(fleet.sightings) == {"v1"}


def test_of_too_many_the_longest_silent_is_forgotten(monkeypatch):
    monkeypatch.setattr(roster, "MOST", 2)
    fleet = VehicleDirectory()
    for at, name in enumerate(("v1", "v2", "v1", "v3")):
        fleet.note(status(name), at=at)
    assert set(fleet.sightings) == {"v1", "v3"}


def test_vehicles_that_say_as_much_as_they_can_fill_no_memory(monkeypatch):
    """A status may weigh 12 KB. The longest silent are forgotten first, however long they were known."""
    monkeypatch.setattr(roster, "MOST_BYTES", 100_000)
    fleet = VehicleDirectory()
    wordy = {f"{kind:064d}": 1 for kind in range(64)}
    for number in range(100):
        long = msgspec.structs.replace(status(f"v{number}"), note="x" * 300, outcomes=wordy)
        fleet.note(long, at=float(number))
        fleet.note(long, at=float(number))
    assert 5 < len(fleet.sightings) < 20
    assert "v99" in fleet.sightings
    for number in range(1000):
        fleet.note(status(f"v{number}"), at=200.0)
    assert len(fleet.sightings) == 1000


def test_who_is_refused_is_known_by_name_until_it_is_believed():
    roster = VehicleDirectory()
    roster.note(status("v1"), at=1.0)
    for name in ("v1", "v2"):
        roster.refuse(name, f"{name} is not listed")
    shown = roster.shown(listed=["v3", "v1"])
    assert {name: each.state for name, each in shown.items()} == {
        "v1": "refused",
        "v2": "refused",
        "v3": "unheard",
    }
    assert shown["v2"].refused == "v2 is not listed"
    roster.believe("v1")
    assert roster.shown()["v1"].state == "online"


def test_strangers_fill_no_memory_with_names_that_are_refused():
    roster = VehicleDirectory()
    for number in range(3 * MOST_REFUSED):
        roster.refuse(f"v{number}", "x" * 5_000)
    assert len(roster.refused) == MOST_REFUSED
    assert max(map(len, roster.refused.values())) <= 300


def reported(**fields):
    given = {
        "vehicle": "v",
        "boot": "b",
        "state": "online",
        "version": 3,
        "bytes_up": 5,
        "bytes_down": 5,
    }
    return Status(**{**given, "waiting": 0, "note": "", **fields})


def test_a_status_is_a_line_where_it_says_something_new_and_else_now_and_then():
    """Every 100 s, another version every 30 s. Counters alone are nothing new; each vehicle has its lines."""
    diary = StatusDiary(100)
    said = [
        (0, reported(), True),
        (10, reported(bytes_up=6, version=4, waiting=2), False),
        (20, reported(vehicle="w"), True),
        (30, reported(note="no disk"), True),
        (40, reported(note="no disk"), False),
        (50, reported(), True),
        (60, reported(state="offline"), True),
        (70, reported(boot="c"), True),
        (169, reported(boot="c"), False),
        (171, reported(boot="c"), True),
        (199, reported(boot="c", version=4), False),
        (202, reported(boot="c", version=5), True),
        (240, reported(boot="c", version=5), False),
        (-9999, reported(boot="c"), True),  # the clock was set back
    ]
    assert [diary.is_due(each, at=at) for at, each, _ in said] == [due for _, _, due in said]
    assert all(StatusDiary(0).is_due(reported(), at=n) for n in range(3))


def test_a_thousand_vehicles_that_report_every_ten_seconds_are_a_line_each_in_five_minutes():
    """8,640 statuses a vehicle and day become 288: of 1.4 GB a day 50 MB are left."""
    diary = StatusDiary(Config().status_s)
    due = sum(
        diary.is_due(reported(vehicle=f"v{v}", bytes_up=n), at=10.0 * n)
        for n in range(90)
        for v in range(1000)
    )
    assert due == 3 * 1000
