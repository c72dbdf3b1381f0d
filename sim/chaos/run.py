"""One chaos run: start the fleet, inject the planned faults, wait for recovery, account for every update."""

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleetfl import FleetflError
from sim.chaos.config import ChaosConfig
from sim.chaos.fleet import VehicleProcess
from sim.chaos.ledger import COUNTS, Ledger, Name, accepted_rows, split_by_host, verdicts
from sim.chaos.plan import Plan, PlannedFault
from sim.chaos.recovery import Injected, recoveries
from sim.chaos.replay import replay
from sim.chaos.testbed import SERVER_KEY, FaultError, Testbed, TestbedError, running_testbed

START_S = 300.0
"""Time limit, in seconds, for the server to start and each vehicle to have a first receipt."""
POLL_S = 0.1
"""Seconds between two checks of a condition that is waited for."""


def run(
    config: ChaosConfig,
    tree: dict[str, Any],
    plan: Plan,
    folder: Path,
    *,
    address: str | None,
    stopping: threading.Event,
) -> dict[str, Any]:
    """Run one plan; gives its line of results.jsonl. A failed run leaves its folder for inspection."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    about = {"seed": plan.seed, "broker": plan.broker.name, "endpoint": plan.has_endpoint}
    injected: list[Injected] = []
    has_begun, why = False, ""
    with running_testbed(
        tree,
        folder,
        choice=plan.broker,
        has_endpoint=plan.has_endpoint,
        address=address,
        num_vehicles=config.num_vehicles,
        seed=plan.seed,
        stopping=stopping,
    ) as testbed:
        try:
            _begin(testbed)
            has_begun = True
            _play(config, plan, testbed, injected)
        except FleetflError as failed:
            why = str(failed)
        testbed.kill_server()
        for vehicle in testbed.vehicles:
            vehicle.kill()
        result = about | _accounts(testbed, injected) | {"has_begun": has_begun, "why": why}
    result["faults"] = [asdict(each) for each in injected]
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def _begin(testbed: Testbed) -> None:
    """Return once the fleet is at work. Raises TestbedError."""
    _wait(testbed, lambda: _is_up(testbed), START_S, "the server did not come up")
    shutil.copyfile(testbed.config.state / SERVER_KEY, testbed.folder / SERVER_KEY)
    for vehicle in testbed.vehicles:
        vehicle.start()
    _wait_for_receipts(testbed, START_S, "before any fault")


def _play(config: ChaosConfig, plan: Plan, testbed: Testbed, injected: list[Injected]) -> None:
    """Inject the faults and wait for recovery. Raises TestbedError if something does not recover."""
    _inflict(plan, testbed, injected)
    _wait_for_receipts(testbed, config.come_back_s, "after the last repair")
    _wait(testbed, testbed.is_endpoint_ready, config.come_back_s, "the endpoint is not ready")
    for vehicle in testbed.vehicles:
        vehicle.order(rests=True)
    _wait(
        testbed,
        lambda: all(vehicle.is_done for vehicle in testbed.vehicles),
        config.drain_s,
        "updates still wait for receipts",
    )


def _inflict(plan: Plan, testbed: Testbed, injected: list[Injected]) -> None:
    rng = random.Random(plan.seed)
    began = time.monotonic()
    agenda: list[tuple[float, Callable[[], None]]] = []

    def inject(planned: PlannedFault) -> None:
        at = time.time()
        try:
            active = planned.fault.inject(testbed, rng)
        except FaultError:
            return

        def repair() -> None:
            repaired_at = time.time()
            active.repair()
            injected.append(Injected(planned.fault.name, at, repaired_at, active.vehicle))

        agenda.append((planned.until_s, repair))
        agenda.sort(key=lambda entry: entry[0])

    agenda += [(planned.at_s, lambda planned=planned: inject(planned)) for planned in plan.faults]
    while agenda:
        at_s, act = agenda.pop(0)
        while (left_s := at_s - (time.monotonic() - began)) > 0:
            time.sleep(min(left_s, POLL_S))
        act()


def _is_up(testbed: Testbed) -> bool:
    """Whether the gateway runs, a first release (and so the server's key) exists, and the endpoint
    answers.
    """
    kinds = {event["event"] for event in testbed.events()}
    return {"gateway_started", "released"} <= kinds and testbed.is_endpoint_ready()


def _wait_for_receipts(testbed: Testbed, patience_s: float, when: str) -> None:
    """Return once each vehicle has a receipt for an update made from now on. Raises TestbedError."""
    so_far = {vehicle.name: len(vehicle.record()) for vehicle in testbed.vehicles}

    def have_come() -> bool:
        return all(_has_receipt(vehicle, so_far[vehicle.name]) for vehicle in testbed.vehicles)

    _wait(testbed, have_come, patience_s, f"no receipt for new updates {when}")


def _has_receipt(vehicle: VehicleProcess, after: int) -> bool:
    recent = {entry.name for entry in vehicle.record()[after:]}
    return bool(recent & set(verdicts(vehicle.receipts(), vehicle.name)))


def _wait(testbed: Testbed, is_done: Callable[[], bool], patience_s: float, otherwise: str) -> None:
    """Return once `is_done()`. Raises TestbedError after `patience_s`, or if a part ended by itself."""
    deadline = time.monotonic() + patience_s
    while not is_done():
        testbed.check()
        if time.monotonic() > deadline:
            raise TestbedError(f"{otherwise} after {patience_s:g} s")
        time.sleep(POLL_S)


def _accounts(testbed: Testbed, injected: list[Injected]) -> dict[str, Any]:
    events, receipts = testbed.events(), testbed.receipts()
    valid, with_host = split_by_host(
        [(host.events, host.backup.newest_row) for host in testbed.lost]
    )
    valid += events[sum(len(host.events) for host in testbed.lost) :]
    again = replay(testbed.config, valid)
    after_backup = set(accepted_rows(with_host)) - _receipted_before_backup(testbed, receipts)
    ledger = _ledger(testbed, again.counted, accepted_rows(valid), after_backup)
    released = {(e["version"], e["sha256"]) for e in events if e["event"] == "released"}
    gone = released - again.digests if testbed.lost else set()
    held = set().union(*(vehicle.held() for vehicle in testbed.vehicles))
    return {
        "produced": len(ledger.outcomes),
        "receipted": len(ledger.receipts),
        "counted": len(ledger.counted),
        "lost": sorted(ledger.lost),
        "lost_with_host": sorted(ledger.lost_with_host),
        "counted_twice": sorted(ledger.counted_twice),
        "unresolved": sorted(ledger.unresolved),
        "unheard_of": sorted(ledger.unheard_of),
        "expired": sum(end == "expired" for end in ledger.outcomes.values()),
        "releases": len(again.digests) - 1,
        "same_bits": released - gone == again.digests and held <= again.digests | gone,
        "recoveries": [asdict(each) for each in recoveries(injected, events, receipts)],
    }


def _ledger(
    testbed: Testbed, counted: set[Name], rows: dict[Name, set[int]], after_backup: set[Name]
) -> Ledger:
    """Ledger of these updates of the journal, with what the vehicles recorded about them."""
    return Ledger(
        outcomes={e.name: e.verdict for vehicle in testbed.vehicles for e in vehicle.record()},
        receipts={
            name: said
            for vehicle in testbed.vehicles
            for name, said in verdicts(vehicle.receipts(), vehicle.name).items()
        },
        counted=counted,
        accepted_rows=rows,
        after_backup=after_backup,
    )


def _receipted_before_backup(testbed: Testbed, receipts: list[dict[str, Any]]) -> set[Name]:
    """Updates that a backup must contain: their vehicles had the receipt before it was begun."""
    if not testbed.lost:
        return set()
    made = testbed.lost[-1].backup.made
    return {
        (receipt["vehicle"], receipt["boot"], receipt["sequence"])
        for receipt in receipts
        if receipt["verdict"] in COUNTS and receipt["time"] < made
    }
