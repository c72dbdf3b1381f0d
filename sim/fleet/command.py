"""`fleetfl sim run` with `clock: virtual`: a scenario from its file to its table and report."""

import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleetfl.config import read_with
from fleetfl.events.event_log import EventReader
from fleetfl.version import commit
from sim.fleet import instructions
from sim.fleet.run import FleetResult, Point, simulate
from sim.fleet.scenario import scenario_of
from sim.report import write_report
from sim.report.measurement import Measurement
from sim.report.progress import Progress
from sim.report.summary import summarize


def run(path: Path, overrides: Sequence[str] = (), *, progress: Progress) -> dict[str, Any]:
    """Run the fleet that the file describes; gives the summary, also written to RUNS/FLEET.

    As a live run's, with `clock`, `virtual_s`, `joules` and `wall_s` besides. Raises ConfigError, ModelError
    and SensorError.
    """
    tree = read_with(path, overrides)
    return run_settings(tree, str(path), progress=progress, overrides=overrides)


def run_settings(
    tree: dict[str, Any], source: str, *, progress: Progress, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """As `run`, with the settings as they were read from `source`."""
    scenario = scenario_of(tree, source, overrides=overrides)
    sim, folder = scenario.sim, (scenario.sim.runs / scenario.sim.fleet).absolute()
    began, started_at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    progress.step(f"{sim.num_vehicles:,} vehicles on virtual time")
    result = simulate(scenario, folder=folder, tell=progress.fleet, say=progress.say)
    events = EventReader(folder / "events.jsonl").read()
    summary = summarize(
        events,
        start=_measured(result.curve[0]),
        end=_measured(result.curve[-1]),
        centralized_baseline=None,
        num_values=result.num_values,
        num_parameters=result.num_parameters,
        latencies_s=[],
        http_requests=0,
        http_failures=0,
        name=sim.fleet,
        folder=str(folder),
        config=source,
        commit=commit(),
        seed=sim.seed,
        started_at=started_at.isoformat(timespec="seconds"),
        duration_s=round(result.virtual_s, 1),
        num_vehicles=sim.num_vehicles,
        precision=sim.model.precision,
        **instructions.in_use(),
    )
    summary |= _of_virtual_time(result, wall_s=time.monotonic() - began)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    write_report(folder / "report.html", summary, events)
    return summary


def _measured(point: Point) -> Measurement:
    return Measurement(point.version, point.accuracy, point.by_condition)


def _of_virtual_time(result: FleetResult, *, wall_s: float) -> dict[str, Any]:
    return {
        "clock": "virtual",
        "virtual_s": result.virtual_s,
        "wall_s": round(wall_s, 1),
        "joules": round(result.joules, 1),
        "bytes_up": result.bytes_up,
        "bytes_down": result.bytes_down,
        "vehicles_heard": sum(vehicle.accepted > 0 for vehicle in result.vehicles.values()),
        "trainings_lost": sum(vehicle.lost for vehicle in result.vehicles.values()),
        "curve": [[point.at_s, point.version, point.accuracy] for point in result.curve],
    }
