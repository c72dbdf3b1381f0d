"""Vehicles without a link for a minute or a day, packets twice and out of order: on virtual time."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fleetfl.config import read_with
from sim.fleet.run import FleetResult, simulate
from sim.fleet.scenario import scenario_of

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).parents[2] / "configs/offline.yaml"
WIFI = {"kind": "lte", "dead_share": 0.0, "repeated_share": 0.2, "late_share": 0.2}


def ran(folder: Path, *overrides: str) -> tuple[FleetResult, list[dict[str, Any]]]:
    """The shipped scenario with these settings, and its events."""
    scenario = scenario_of(read_with(CONFIG, overrides), str(CONFIG))
    result = simulate(scenario, folder=folder)
    lines = (folder / "events.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def require_ledger(result: FleetResult, events: list[dict[str, Any]]) -> None:
    """Every update of every vehicle has an end or waits; each with a receipt was counted, none twice."""
    counted = Counter(
        (e["vehicle"], e["boot"], e["sequence"]) for e in events if e["event"] == "accepted"
    )
    assert set(counted.values()) == {1}
    by_vehicle = Counter(vehicle for vehicle, _, _ in counted)
    for name, vehicle in result.vehicles.items():
        kept = sum(vehicle.outcomes.values()) + vehicle.waiting
        # The run may end in the middle of a training.
        assert vehicle.trainings - 1 <= kept <= vehicle.trainings
        receipted = vehicle.outcomes.get("accepted", 0) + vehicle.outcomes.get("duplicate", 0)
        assert receipted <= by_vehicle[name] <= kept


def learned(result: FleetResult) -> float:
    return result.curve[-1].accuracy - result.curve[0].accuracy


def drops(result: FleetResult) -> Counter[str]:
    total: Counter[str] = Counter()
    for vehicle in result.vehicles.values():
        total.update({end: n for end, n in vehicle.outcomes.items() if end.startswith("expired")})
    return total


def test_a_day_without_a_link_for_nine_of_ten_loses_nothing_but_what_the_bounds_say(
    tmp_path: Path,
) -> None:
    """The tenth keeps the fleet learning meanwhile; outboxes of 20 are full long before the day is over."""
    result, events = ran(tmp_path)
    require_ledger(result, events)
    during = [
        e["vehicle"]
        for e in events
        if e["event"] == "accepted" and 4 * 3600 < e["time"] < 27 * 3600
    ]
    assert len(set(during)) == 2
    assert len(during) > 50
    after = {e["vehicle"] for e in events if e["event"] == "accepted" and e["time"] > 27 * 3600}
    assert len(after) == 20
    assert learned(result) > 0.3
    assert drops(result)["expired count"] > 18 * 20  # of 48 trainings a day, 20 stay
    assert set(drops(result)) <= {"expired count", "expired stale"}
    assert any(event["event"] == "duplicate" for event in events)


def test_a_day_offline_within_the_bounds_drops_only_what_is_too_stale_to_count(
    tmp_path: Path,
) -> None:
    result, events = ran(
        tmp_path, "vehicle.outbox.max_updates=10000", "vehicle.agent.max_waiting=15"
    )
    require_ledger(result, events)
    assert set(drops(result)) <= {"expired stale"}
    assert learned(result) > 0.3


def test_a_minute_without_a_link_costs_nothing_at_all(tmp_path: Path) -> None:
    links = [{**WIFI, "out_from_hour": 3, "out_hours": 1 / 60}, WIFI]
    result, events = ran(
        tmp_path, f"sim.links={json.dumps(links)}", "sim.stop.hours=2", "sim.frame_every_s=120"
    )
    require_ledger(result, events)
    assert not drops(result)
    assert learned(result) > 0.3
    for vehicle in result.vehicles.values():
        assert vehicle.waiting <= 2
        assert set(vehicle.outcomes) <= {"accepted", "duplicate"}


def test_the_scenario_is_the_same_twice(tmp_path: Path) -> None:
    short = "sim.stop.hours=4"
    assert ran(tmp_path / "a", short) == ran(tmp_path / "b", short)
