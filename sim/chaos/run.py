"""One run: the fleet at work, the faults of its plan, time to come back and to drain, and the ledger."""

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
from sim.chaos.plan import Plan, Strike
from sim.chaos.recovery import Injected, recoveries
from sim.chaos.replay import replay
from sim.chaos.stage import SERVER_KEY, FaultError, Testbed, TestbedError, testbed

START_S = 300.0
"""A server and a first receipt of each vehicle may take so long before any fault."""
POLL_S = 0.1


def run(
    config: ChaosConfig,
    tree: dict[str, Any],
    plan: Plan,
    folder: Path,
    *,
    address: str | None,
    stopping: threading.Event,
) -> dict[str, Any]:
    """What came of it, as a line of the results. A run that failed leaves its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    about = {"seed": plan.seed, "broker": plan.broker.name, "endpoint": plan.has_endpoint}
    struck: list[Injected] = []
    has_begun, why = False, ""
    with testbed(
        tree,
        folder,
        choice=plan.broker,
        has_endpoint=plan.has_endpoint,
        address=address,
        num_vehicles=config.num_vehicles,
        seed=plan.seed,
        stopping=stopping,
    ) as stage:
        try:
            _begin(stage)
            has_begun = True
            _play(config, plan, stage, struck)
        except FleetflError as failed:
            why = str(failed)
        stage.kill_server()
        for vehicle in stage.vehicles:
            vehicle.kill()
        result = about | _accounts(stage, struck) | {"has_begun": has_begun, "why": why}
    result["faults"] = [asdict(each) for each in struck]
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def _begin(stage: Testbed) -> None:
    """Return once the fleet is at work. Raises StageError."""
    _wait(stage, lambda: _is_up(stage), START_S, "the server did not come up")
    shutil.copyfile(stage.config.state / SERVER_KEY, stage.folder / SERVER_KEY)
    for vehicle in stage.vehicles:
        vehicle.start()
    _wait_for_receipts(stage, START_S, "before any fault")


def _play(config: ChaosConfig, plan: Plan, stage: Testbed, struck: list[Injected]) -> None:
    """Raises StageError if something does not come back."""
    _inflict(plan, stage, struck)
    _wait_for_receipts(stage, config.come_back_s, "once all was mended")
    _wait(stage, stage.is_endpoint_ready, config.come_back_s, "the endpoint is not ready")
    for vehicle in stage.vehicles:
        vehicle.order(rests=True)
    _wait(
        stage,
        lambda: all(vehicle.is_done for vehicle in stage.vehicles),
        config.drain_s,
        "updates still wait for receipts",
    )


def _inflict(plan: Plan, stage: Testbed, struck: list[Injected]) -> None:
    rng = random.Random(plan.seed)
    began = time.monotonic()
    agenda: list[tuple[float, Callable[[], None]]] = []

    def inject(planned: Strike) -> None:
        at = time.time()
        try:
            hit = planned.fault.inject(stage, rng)
        except FaultError:
            return

        def repair() -> None:
            mended_at = time.time()
            hit.repair()
            struck.append(Injected(planned.fault.name, at, mended_at, hit.vehicle))

        agenda.append((planned.until_s, repair))
        agenda.sort(key=lambda entry: entry[0])

    agenda += [(s.at_s, lambda s=s: inject(s)) for s in plan.strikes]
    while agenda:
        at_s, act = agenda.pop(0)
        while (left_s := at_s - (time.monotonic() - began)) > 0:
            time.sleep(min(left_s, POLL_S))
        act()


def _is_up(stage: Testbed) -> bool:
    """The gateway runs, what the vehicles believe the server by is on disk, and the endpoint answers."""
    kinds = {event["event"] for event in stage.events()}
    return {"gateway_started", "released"} <= kinds and stage.is_endpoint_ready()


def _wait_for_receipts(stage: Testbed, patience_s: float, when: str) -> None:
    """Until each vehicle has one for an update that it makes from now on. Raises StageError."""
    so_far = {vehicle.name: len(vehicle.record()) for vehicle in stage.vehicles}

    def have_come() -> bool:
        return all(_has_receipt(vehicle, so_far[vehicle.name]) for vehicle in stage.vehicles)

    _wait(stage, have_come, patience_s, f"no receipt for new updates {when}")


def _has_receipt(vehicle: VehicleProcess, after: int) -> bool:
    recent = {entry.name for entry in vehicle.record()[after:]}
    return bool(recent & set(verdicts(vehicle.receipts(), vehicle.name)))


def _wait(stage: Testbed, is_done: Callable[[], bool], patience_s: float, otherwise: str) -> None:
    """Raises StageError, also if a part of the stage ended by itself."""
    deadline = time.monotonic() + patience_s
    while not is_done():
        stage.check()
        if time.monotonic() > deadline:
            raise TestbedError(f"{otherwise} after {patience_s:g} s")
        time.sleep(POLL_S)


def _accounts(stage: Testbed, struck: list[Injected]) -> dict[str, Any]:
    events, receipts = stage.events(), stage.receipts()
    valid, with_host = split_by_host([(host.events, host.backup.newest_row) for host in stage.lost])
    valid += events[sum(len(host.events) for host in stage.lost) :]
    again = replay(stage.config, valid)
    ledger = Ledger(
        outcomes={e.name: e.verdict for vehicle in stage.vehicles for e in vehicle.record()},
        receipts={
            name: said
            for vehicle in stage.vehicles
            for name, said in verdicts(vehicle.receipts(), vehicle.name).items()
        },
        counted=again.counted,
        accepted_rows=accepted_rows(valid),
        after_backup=set(accepted_rows(with_host)) - _receipted_before_backup(stage, receipts),
    )
    released = {(e["version"], e["sha256"]) for e in events if e["event"] == "released"}
    gone = released - again.digests if stage.lost else set()
    held = set().union(*(vehicle.held() for vehicle in stage.vehicles))
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
        "recoveries": [asdict(each) for each in recoveries(struck, events, receipts)],
    }


def _receipted_before_backup(stage: Testbed, receipts: list[dict[str, Any]]) -> set[Name]:
    """What a backup promises: its vehicle had the receipt when the backup was begun."""
    if not stage.lost:
        return set()
    made = stage.lost[-1].backup.made
    return {
        (receipt["vehicle"], receipt["boot"], receipt["sequence"])
        for receipt in receipts
        if receipt["verdict"] in COUNTS and receipt["time"] < made
    }
