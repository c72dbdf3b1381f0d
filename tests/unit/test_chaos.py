"""Chaos: what a ledger finds, which faults a seed gives, how long it took to come back."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from fleetfl.config import load
from fleetfl.protocol.messages import SIGNATURE
from sim.chaos.config import ChaosConfig
from sim.chaos.ledger import Ledger, accepted_rows, split_by_host, verdicts
from sim.chaos.plan import planned
from sim.chaos.recovery import Injected, Recovery, recoveries
from sim.chaos.summary import has_failed, summarized, told

pytestmark = pytest.mark.unit
CONFIG = Path(__file__).parents[2] / "configs" / "chaos.yaml"
A, B, C = (("v0", "boot", number) for number in range(3))


@pytest.fixture(scope="module")
def config():
    return load(CONFIG, "chaos", ChaosConfig)


def ledger(**fields):
    return Ledger(**{"outcomes": {}, "receipts": {}, "counted": set(), **fields})


def test_an_update_is_lost_if_its_vehicle_was_told_that_it_counts_and_it_does_not():
    found = ledger(
        outcomes={A: "accepted", B: "duplicate", C: "refused"},
        receipts={A: {"accepted"}, B: {"duplicate"}, C: {"refused"}},
        counted={A},
    )
    assert found.lost == {B}


def test_what_a_lost_host_counted_behind_its_backup_is_said_and_not_lost():
    """B was counted behind the backup. A was not, so that nothing explains that it is missing."""
    found = ledger(receipts={A: {"accepted"}, B: {"accepted"}}, after_backup={B, C})
    assert (found.lost, found.lost_with_host) == ({A}, {B})


def test_what_a_lost_host_told_holds_up_to_the_last_row_of_its_backup():
    """The first backup has rows up to 2; the second one, of the host restored from it, up to 3."""
    first = [{"event": "accepted", "row": n} for n in (1, 2, 3)]
    second = [{"event": "generation_began", "counted_row": 2}, *first[2:], {"event": "x", "row": 4}]
    valid, gone = split_by_host([(first, 2), (second, 3)])
    assert valid == [*first[:2], *second[:2]]
    assert gone == [first[2], second[2]]


def test_a_fault_of_every_run_is_in_every_run():
    drill = load(CONFIG.with_name("chaos-restore.yaml"), "chaos", ChaosConfig)
    plans = [planned(drill, seed) for seed in range(40)]
    assert all(any(s.fault.kind_name == "host" for s in plan.faults) for plan in plans)
    assert len({plan.faults for plan in plans}) == 40
    assert {len(plan.faults) for plan in plans} == {1, 2}


def test_a_receipt_whose_vehicle_died_before_it_noted_it_is_a_promise_all_the_same():
    assert ledger(outcomes={A: None}, receipts={A: {"accepted"}}).lost == {A}


def test_an_update_that_expired_on_its_way_may_be_counted_and_is_neither_lost_nor_counted_twice():
    for counted in (set(), {A}):
        found = ledger(outcomes={A: "expired"}, counted=counted)
        assert not found.lost | found.counted_twice | found.unresolved | found.unheard_of


def test_an_update_in_two_rows_is_counted_twice():
    told_twice = {"event": "accepted", "vehicle": "v0", "boot": "boot", "sequence": 0, "row": 7}
    other_row = {**told_twice, "sequence": 1, "row": 8}
    rows = accepted_rows([told_twice, told_twice, other_row, {**other_row, "row": 9}])
    assert rows == {A: {7}, B: {8, 9}}
    assert ledger(outcomes={A: "accepted", B: "accepted"}, accepted_rows=rows).counted_twice == {B}


def test_a_refused_update_that_counts_is_counted_twice_as_its_vehicle_learns_from_what_came_back():
    assert ledger(outcomes={A: "refused"}, counted={A}).counted_twice == {A}


def test_an_update_that_waits_at_the_end_is_unresolved_and_one_that_nobody_made_is_unheard_of():
    found = ledger(outcomes={A: None, B: "accepted"}, counted={B, C})
    assert (found.unresolved, found.unheard_of) == ({A}, {C})


def test_a_receipt_after_which_the_vehicle_keeps_the_update_is_none():
    receipts = [
        {"boot": "boot", "sequence": 0, "verdict": "refused", "reason": SIGNATURE},
        {"boot": "boot", "sequence": 1, "verdict": "accepted", "reason": ""},
        {"boot": "boot", "sequence": 1, "verdict": "duplicate", "reason": ""},
    ]
    assert verdicts(receipts, "v0") == {B: {"accepted", "duplicate"}}


def test_the_same_seed_gives_the_same_faults_and_another_seed_others(config):
    assert planned(config, 7) == planned(config, 7)
    assert len({planned(config, seed).faults for seed in range(20)}) == 20


def test_two_hundred_runs_have_every_fault_on_every_broker_and_some_an_endpoint(config):
    plans = [planned(config, seed) for seed in range(1, 201)]
    names = {inject.fault.name for plan in plans for inject in plan.faults}
    assert names == {fault.name for fault in config.faults}
    each = Counter(plan.broker.name for plan in plans)
    assert len(each) == 4
    assert min(each.values()) >= 40
    with_endpoint = [plan for plan in plans if plan.has_endpoint]
    assert 0 < len(with_endpoint) <= 20
    assert len({plan.broker.name for plan in with_endpoint}) == 4


def test_no_fault_strikes_what_another_one_holds_down(config):
    for plan in (planned(config, seed) for seed in range(200)):
        for number, one in enumerate(plan.faults):
            for other in plan.faults[number + 1 :]:
                if one.fault.victim == other.fault.victim:
                    assert other.at_s >= one.until_s


def test_faults_of_the_endpoint_strike_only_where_there_is_one(config):
    for plan in (planned(config, seed) for seed in range(200)):
        assert plan.has_endpoint or not any(s.fault.needs_endpoint for s in plan.faults)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_faults": [4, 2]}, "expected FEWEST, MOST"),
        ({"faults": [{"kind": "broker", "for_s": [2, 1]}]}, "expected the shorter time first"),
        ({"faults": [{"kind": "earthquake"}]}, "earthquake"),
        ({"faults": []}, "faults"),
        ({"brokers": [{"kind": "emqx"}]}, "brokers"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(config, settings, complaint):
    tree = config.model_dump(mode="json")
    with pytest.raises(ValidationError, match=complaint):
        ChaosConfig.model_validate(tree | settings)


def receipt(time, vehicle="v0"):
    return {"time": time, "vehicle": vehicle}


def test_recovery_is_from_when_ray_built_the_actor_again_until_the_next_receipt():
    """Killed at 10, up at 13.5 after 1.5 s of replay: Ray took 2 s; receipt at 14.25: we 2.25 s."""
    started = {"event": "aggregator_started", "time": 13.5, "seconds": 1.5}
    injected = [Injected("kill aggregator", 10.0, 10.0)]
    assert recoveries(injected, [started], [receipt(10.5), receipt(14.25)]) == [
        Recovery("kill aggregator", ray_s=2.0, ours_s=2.25)
    ]


def test_recovery_of_a_vehicle_is_by_its_own_receipts_from_when_it_was_mended():
    injected = [Injected("vehicle", 10.0, 11.0, "v1")]
    receipts = [receipt(11.5), receipt(10.9, "v1"), receipt(12.0, "v1")]
    assert recoveries(injected, [], receipts) == [Recovery("vehicle", ray_s=0.0, ours_s=1.0)]


def test_what_two_faults_did_together_is_neither_s():
    injected = [Injected("broker killed", 10.0, 11.0), Injected("server", 10.5, 11.5)]
    assert recoveries(injected, [], [receipt(13.0)]) == []


def test_a_fault_that_was_over_before_ray_had_built_the_actor_again_is_not_in_the_way():
    """Up at 14, receipt at 14.5: a link bad until 12.5 is not, an aggregator away until 13.5 is."""
    gateway = Injected("kill gateway", 10.0, 10.0)
    events = [
        {"event": "gateway_started", "time": 14.0},
        {"event": "aggregator_started", "time": 13.5},
    ]
    link = Injected("link of fleet cut", 11.0, 12.5)
    assert recoveries([gateway, link], events, [receipt(14.5)])[0].ours_s == 0.5
    aggregator = Injected("kill aggregator", 11.0, 11.0)
    assert recoveries([gateway, aggregator], events, [receipt(14.5)]) == []


def test_a_gateway_that_a_new_server_built_says_nothing_about_ray():
    gateway, server = Injected("kill gateway", 10.0, 10.0), Injected("server", 11.0, 11.5)
    started = [{"event": "gateway_started", "time": 30.0}]
    assert recoveries([gateway, server], started, [receipt(30.5)])[0].fault == "server"


def result(**fields):
    good = {
        "seed": 1,
        "broker": "nats",
        "endpoint": False,
        "produced": 5,
        "receipted": 5,
        "counted": 5,
        "expired": 0,
        "lost": [],
        "counted_twice": [],
        "unresolved": [],
        "unheard_of": [],
        "releases": 1,
        "same_bits": True,
        "why": "",
        "faults": [{"name": "kill gateway"}],
        "recoveries": [{"fault": "kill gateway", "ours_s": 0.5, "ray_s": 2.0}],
    }
    return good | fields


def test_the_summary_says_ray_s_own_restart_beside_ours_and_which_seeds_failed():
    link = {"fault": "link of fleet cut", "ours_s": 9.0, "ray_s": 0.0}
    slow = {"fault": "kill gateway", "ours_s": 1.5, "ray_s": 3.0}
    results = [result(), result(seed=2, lost=[A], recoveries=[slow, link]), result(seed=3)]
    summary = summarized(results)
    assert summary["failed_seeds"] == [2]
    assert told(summary) == {
        "runs": 3,
        "produced": 15,
        "receipted": 15,
        "counted": 15,
        "lost": 1,
        "counted_twice": 0,
        "unresolved": 0,
        "lost_with_host": 0,
        "not_recovered": 0,
        "recovery_s": {"median": 0.5, "worst": 1.5},
        "ray_restart_s": {"median": 2.0, "worst": 3.0},
    }
    assert summary["recovery_s_by_fault"]["link of fleet cut"]["worst"] == 9.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": [A]},
        {"counted_twice": [A]},
        {"unresolved": [A]},
        {"unheard_of": [A]},
        {"same_bits": False},
        {"why": "the server ended"},
    ],
)
def test_a_run_with_any_of_these_has_failed(wrong):
    assert has_failed(result(**wrong))
    assert not has_failed(result())
