"""What an accepted update costs in virtual fleets of 100 to 100,000 vehicles, and what an idle vehicle holds.

Claims: processor time an update stays within 20 % of that of 100 vehicles; 100,000 vehicles run in at most
10 minutes and 8 GB; the state of an idle vehicle is kilobytes.

Run: python benchmarks/virtual_scale.py [--json FILE] [--picture FILE.svg]

Agent, codec, wire format, gateway and coordinator are the real ones, on LTE, satellite and depot links;
the trainer is the synthetic one, so that the fleet is what is measured. 20 vehicles train at a time
whatever the fleet's size, each fleet accepts 20,000 updates or one a vehicle if that is more, and
building the fleet and its result counts. Every fleet is a process of its own. Before and after it a fleet
of 100 runs (5,000 updates), so that a machine that is slower for a while is told from a fleet that costs
more: `against 100` is the time over the mean of those two. An idle vehicle's bytes are resident memory
of a fleet in which next to none has trained, over that of 100 vehicles; a used one's the same after the run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sim.fleet.run import simulate
from sim.fleet.scenario import Scenario, scenario_of
from sim.report.charts import Scale
from sim.report.markup import Markup, element, joined
from sim.report.picture import WIDTH, picture
from sim.world import CLASSES

BASE = 100
FEW = 100
"""Updates of the fleets whose idle vehicles are weighed."""
ALLOWED = 1.2
HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 64, 60, 64, 60
STYLE = """
.band { fill: #1f6feb; fill-opacity: .07; } .line { fill: none; stroke: #1f6feb; stroke-width: 2; }
"""


def scenario(vehicles: int, updates: int) -> Scenario:
    tree = {
        "fleet": "scale",
        "seed": 7,
        "model": {"classes": list(CLASSES)},
        "server": {"aggregator": {"kind": "fedbuff", "goal": 10}, "release": {"kind": "float32"}},
        "vehicle": {"codec": {"kind": "int8"}, "agent": {"status_s": 3600, "resend_s": 60}},
        "sim": {
            "clock": "virtual",
            "num_vehicles": vehicles,
            "learning": {"kind": "synthetic", "size": 256},
            "stop": {"hours": 10_000, "updates": updates},
            "devices": {"jetson_orin": 3, "jetson_xavier": 3, "raspberry_pi_5": 2, "phone_soc": 2},
            "links": [{"kind": "lte"}, {"kind": "depot_wifi"}, {"kind": "satellite"}],
            "participation": {"kind": "sampled", "concurrency": 20, "lease_s": 60},
        },
    }
    return scenario_of(tree, "benchmark")


def measure(vehicles: int, updates: int) -> None:
    """Print as JSON what one fleet costs."""
    wall, processor = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(scenario(vehicles, updates), folder=Path(folder))
    row = {
        "vehicles": vehicles,
        "updates": result.updates,
        "heard": sum(vehicle.accepted > 0 for vehicle in result.vehicles.values()),
        "processor_s": time.process_time() - processor,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "virtual_h": result.virtual_s / 3600,
    }
    row["ms_per_update"] = 1000 * row["processor_s"] / result.updates
    print(json.dumps(row))


def measured(vehicles: int, updates: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(vehicles), str(updates)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{vehicles} vehicles failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(sizes: list[int], updates: int, beside: int) -> list[dict[str, Any]]:
    head = f"{'vehicles':>9}{'updates':>9}{'ms/update':>11}{'against 100':>13}{'wall, s':>9}"
    print(f"{head}{'peak, MB':>10}{'idle, B':>9}{'used, B':>9}", flush=True)
    empty = measured(BASE, FEW)
    rows, before = [], measured(BASE, beside)
    for vehicles in sizes:
        row = measured(vehicles, max(updates, vehicles))
        after = measured(BASE, beside)
        between = (before["ms_per_update"] + after["ms_per_update"]) / 2
        row |= {"against_100": row["ms_per_update"] / between, "ms_of_100": between}
        if vehicles >= 100 * BASE:
            idle = measured(vehicles, FEW)
            row["idle_bytes"] = (idle["peak_mb"] - empty["peak_mb"]) * 2**20 / vehicles
            row["used_bytes"] = (row["peak_mb"] - after["peak_mb"]) * 2**20 / row["heard"]
        before = after
        rows.append(row)
        weights = "".join(
            f"{row.get(f'{kind}_bytes', math.nan):9,.0f}" for kind in ("idle", "used")
        )
        print(
            f"{vehicles:9,}{row['updates']:9,}{row['ms_per_update']:11.2f}{row['against_100']:13.2f}"
            f"{row['wall_s']:9.0f}{row['peak_mb']:10,.0f}{weights}",
            flush=True,
        )
    return rows


def drawn(rows: list[dict[str, Any]]) -> str:
    """SVG: time an update over that of 100 vehicles beside it, against the size of the fleet."""
    sizes = [row["vehicles"] for row in rows]
    top = max(1.4, *(row["against_100"] for row in rows))
    across = Scale(math.log10(sizes[0]), math.log10(sizes[-1]), LEFT + 30, WIDTH - RIGHT)
    down = Scale(0, top, HEIGHT - BOTTOM, TOP)
    places = [(across.at(math.log10(r["vehicles"])), down.at(r["against_100"])) for r in rows]
    low, high = down.at(2 - ALLOWED), down.at(ALLOWED)
    marks = [
        element("rect", x=LEFT, y=high, width=WIDTH - LEFT, height=low - high, class_="band"),
        *(_level(level, down.at(level)) for level in (0, 0.5, 1)),
        element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="line"),
        *(_point(row, x, y) for row, (x, y) in zip(rows, places, strict=True)),
        element("text", "vehicles", x=LEFT, y=HEIGHT - 12),
    ]
    return picture(
        "Processor time an accepted update",
        "over that of 100 vehicles at the same time; shaded: within 20 %",
        marks,
        height=HEIGHT,
        left=LEFT,
        style=STYLE,
        label="Processor time an accepted update against the number of vehicles",
    )


def _level(level: float, y: float) -> Markup:
    line = element("line", x1=LEFT, x2=WIDTH, y1=y, y2=y, class_="grid")
    return joined([line, element("text", f"{level:g}x", x=LEFT - 8, y=y + 4, text_anchor="end")])


def _point(row: dict[str, Any], x: float, y: float) -> Markup:
    memory, under = f"{row['peak_mb']:,.0f} MB", HEIGHT - BOTTOM + 18
    return joined(
        [
            element("circle", cx=x, cy=y, r=5, class_="ours"),
            element(
                "text",
                f"{row['ms_per_update']:.2f} ms",
                x=x,
                y=y - 12,
                text_anchor="middle",
                class_="strong",
            ),
            element("text", memory, x=x, y=y + 22, text_anchor="middle"),
            element("text", f"{row['vehicles']:,}", x=x, y=under, text_anchor="middle"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the rows there")
    parser.add_argument("--picture", type=Path, help="also draw them there, as SVG")
    parser.add_argument("--sizes", default="100,1000,10000,100000")
    parser.add_argument("--updates", type=int, default=20_000, help="at least; one a vehicle")
    parser.add_argument("--beside", type=int, default=5_000, help="updates of the fleets of 100")
    parser.add_argument("--measure", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    rows = rows_of([int(n) for n in options.sizes.split(",")], options.updates, options.beside)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.picture:
        options.picture.write_text(drawn(rows) + "\n")


if __name__ == "__main__":
    main()
