"""Virtual fleets: the same twice, the lost stall nobody, the idle cost little, days and links as they say."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetfl.config import ConfigError
from fleetfl.plugins import available
from sim.datasets import Weather
from sim.fleet.availability import DAY_S
from sim.fleet.availability.charging import Config as Charging
from sim.fleet.availability.flights import Config as Flights
from sim.fleet.availability.nights import Config as Nights
from sim.fleet.links import Link
from sim.fleet.links.lte import Config as Lte
from sim.fleet.run import FleetResult, simulate
from sim.fleet.scenario import scenario_of
from sim.fleet.weather.fronts import Config as Fronts
from sim.world import CLASSES

pytestmark = pytest.mark.unit


def ran(
    folder: Path, *, seed: int = 3, server: dict[str, Any] | None = None, **sim: Any
) -> FleetResult:
    """A fleet without images; keywords are settings of `sim`."""
    tree = {
        "fleet": "f",
        "model": {"classes": list(CLASSES)},
        "server": {
            "aggregator": {"kind": "fedbuff", "goal": 5},
            "release": {"kind": "float32"},
            **(server or {}),
        },
        "vehicle": {"codec": {"kind": "int8"}, "agent": {"status_s": 3600, "resend_s": 60}},
        "sim": {
            "clock": "virtual",
            "num_vehicles": 20,
            "learning": {"kind": "synthetic", "size": 64, "heterogeneity": 0.2},
            "stop": {"hours": 48, "updates": 200},
            "devices": {"jetson_orin": 1, "raspberry_pi_5": 1},
            "links": [{"kind": "lte"}, {"kind": "satellite"}],
            **sim,
        },
    }
    return simulate(scenario_of(tree, "test", seed=seed), folder=folder)


SAMPLED = {"kind": "sampled", "concurrency": 6, "zipf": 1.2, "lease_s": 60}
KINDS = [{"kind": "continuous"}, SAMPLED, {"kind": "rounds", "cohort": 8, "lease_s": 60}]


@pytest.mark.parametrize("participation", KINDS, ids=lambda kind: kind["kind"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(
    tmp_path: Path, participation: dict[str, Any]
) -> None:
    settings = {"participation": participation, "lost_share": 0.05}
    first = ran(tmp_path / "a", **settings)
    again = ran(tmp_path / "b", **settings)
    other = ran(tmp_path / "c", seed=4, **settings)
    events = [(tmp_path / name / "events.jsonl").read_bytes() for name in "abc"]
    assert events[0] == events[1] != events[2]
    assert first == again != other
    assert first.updates == 200
    assert first.curve[-1].accuracy > first.curve[0].accuracy + 0.3


def test_every_kind_of_participation_is_tried_here() -> None:
    assert sorted(kind["kind"] for kind in KINDS) == available("sim.fleet.participation")


def test_an_update_that_was_not_delivered_goes_out_in_the_next_flight(tmp_path: Path) -> None:
    """Over a link that is dead two minutes of three, flights of two minutes often end before the receipt."""
    result = ran(
        tmp_path,
        stop={"hours": 48, "updates": 300},
        links=[{"kind": "lte", "dead_share": 0.66}],
        availability={"kind": "flights", "a_day": 40, "minutes": 2, "to_hour": 24, "from_hour": 0},
    )
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    boot = {}
    late = 0
    for event in events:
        if event["event"] == "online":
            boot[event["vehicle"]] = event["boot"]
        late += event["event"] == "accepted" and event["boot"] != boot.get(event["vehicle"])
    assert result.updates == 300
    assert late


def test_a_synchronous_round_counts_nobody_from_another(tmp_path: Path) -> None:
    server = {"aggregator": {"kind": "fedbuff", "goal": 5}, "max_staleness": 0}
    rounds = {"kind": "rounds", "cohort": 7}
    result = ran(tmp_path, server=server, participation=rounds, jitter_sigma=0.3)
    assert max(result.staleness) == 0
    assert set(result.refused) <= {"stale"}
    assert result.releases == 40


def test_a_vehicle_that_is_off_is_no_task_and_holds_no_vector(tmp_path: Path) -> None:
    """A thousand, of which few are on at a time; all that have trained share what they hold."""
    result = ran(
        tmp_path,
        num_vehicles=1000,
        availability={"kind": "flights", "a_day": 2, "minutes": 10},
        participation={"kind": "continuous"},
        stop={"hours": 24, "updates": 300},
    )
    idle = [vehicle for vehicle in result.vehicles.values() if not vehicle.trainings]
    assert len(idle) > 300
    assert all(vehicle.meter.bytes_down == 0 for vehicle in idle)


def test_energy_is_power_times_training_time_on_links_that_cost_nothing(tmp_path: Path) -> None:
    """An Orin draws 30 W and looks at 320 images in 320 / 1200 s: 8 J a training."""
    result = ran(
        tmp_path,
        devices={"jetson_orin": 1},
        speed_sigma=0.0,
        jitter_sigma=0.0,
        links=[{"kind": "instant"}],
        participation=SAMPLED,
    )
    trainings = sum(vehicle.trainings for vehicle in result.vehicles.values())
    assert result.joules == pytest.approx(8 * trainings)


def test_a_transfer_takes_bits_over_rate_and_waits_for_the_end_of_a_dead_slot() -> None:
    """8 kbit/s: 1000 bytes in 1 s and 0.05 s of latency; begun in a dead minute, after that minute."""
    config = Lte(up_bits_per_s=8000, sigma=0, dead_share=0.5)
    link = Link(config, seed=1)
    dead = [link._rate(slot, 8000) == 0 for slot in range(200)]
    assert 60 < sum(dead) < 140
    live = dead.index(False)
    assert link.seconds(live * 60.0, 1000, up=True) == pytest.approx(1.05)
    nth = next(n for n in range(200) if dead[n] and not dead[n + 1])
    assert link.seconds(nth * 60.0 + 20, 1000, up=True) == pytest.approx(41.05)


@pytest.mark.parametrize("days", [Flights(), Charging(), Nights(time_zones=5)], ids=str)
def test_windows_come_in_order_and_do_not_overlap(days: Any) -> None:
    windows = list(itertools.islice(days.windows(seed=9), 30))
    assert all(begin < end for begin, end in windows)
    assert all(one[1] <= next_one[0] for one, next_one in itertools.pairwise(windows))
    assert windows[0][0] < 2 * DAY_S


def test_flights_keep_to_their_hours() -> None:
    for begin, end in itertools.islice(Flights(from_hour=8, to_hour=10).windows(seed=2), 40):
        assert 8 <= begin % DAY_S / 3600 <= end % DAY_S / 3600 <= 10


def test_fronts_move_from_west_to_east() -> None:
    """Four bands in 4 hours over 4 vehicles: each hour a vehicle has what its western neighbour had."""
    names = ("fog", "rain", "snow", "dust")
    weathers = tuple(Weather.model_validate({"condition": name}) for name in names)
    fronts = Fronts(hours=4)
    sky = [[fronts.at(weathers, v, 4, 3600.0 * h).condition for v in range(4)] for h in range(4)]
    assert sky[0] == list(names)
    for hour in range(3):
        assert sky[hour + 1] == list(np.roll(sky[hour], 1))


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"abacus.*jetson_orin"):
        ran(tmp_path, devices={"abacus": 1})
