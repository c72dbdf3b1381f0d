"""A whole comparison, from pictures to the page, and on again."""

import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import yaml

from fleetfl.cli import main
from sim import world

pytestmark = pytest.mark.slow


def photographs(tmp_path):
    """Random pictures of two classes: nothing is learned, all of the machinery is used."""
    rng = np.random.default_rng(0)
    archive = {
        f"{what}_{part}": made
        for part, count in (("train", 300), ("test", 40))
        for what, made in (
            ("x", rng.integers(0, 255, (count, 32, 32, 3)).astype(np.uint8)),
            ("y", rng.integers(0, 2, count)),
        )
    }
    np.savez(tmp_path / "pictures.npz", **archive)
    return {
        "kind": "photographs",
        "path": str(tmp_path / "pictures.npz"),
        "initial_rows": [0, 100],
        "fleet_rows": [100, 300],
    }


def drone_world(tmp_path):
    return {"kind": "drone_world", "num_initial": 100, "num_fleet": 200, "num_held_out": 40}


@pytest.fixture(params=[(photographs, ("a", "b")), (drone_world, world.CLASSES)])
def config(request, tmp_path):
    dataset, classes = request.param
    fleet = {"kind": "quick", "num_vehicles": 10, "concurrency": 4, "horizon_s": 600}
    tree = {
        "fleet": "small",
        "seed": 3,
        "model": {"classes": list(classes)},
        "sim": {
            "runs": str(tmp_path),
            "dataset": dataset(tmp_path),
            "weathers": [{"condition": "fog"}, {"condition": "rain"}],
        },
        "compare": {
            "trials": 2,
            "seeds": [1, 2],
            "tuning_seeds": [9],
            "against": "sync",
            "scenarios": [{"name": "mild", "fleet": {**fleet, "evaluations": 10}}],
            "candidates": [
                {"name": "ours", "aggregator": {"kind": "accord"}},
                {
                    "name": "sync",
                    "rounds": True,
                    "aggregator": {"kind": "fedavg", "goal": 3},
                    "grid": {"optimizer.learning_rate": [0.5, 1.0]},
                },
                {
                    "name": "solved first",
                    "closed_form": 5,
                    "aggregator": {"kind": "fedbuff", "goal": 2},
                },
            ],
        },
    }
    file = tmp_path / "compare.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def compared(config, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sim", "compare", str(config), "--workers", "1", "--json"])
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


def test_a_comparison_runs_and_goes_on(config, capsys):
    """2 tuning runs and 6 in the end; the second time none."""
    first = compared(config, capsys)
    assert [(r["candidate"], r["seeds"]) for r in first] == [
        ("ours", 2),
        ("sync", 2),
        ("solved first", 2),
    ]
    log = config.parent / "small" / "compare.jsonl"
    lines = log.read_text()
    assert len(lines.splitlines()) == 2 + 6
    assert "<polyline" in (config.parent / "small" / "compare.html").read_text()
    assert compared(config, capsys) == first
    assert log.read_text() == lines


HELD = """
import sys, time
from pathlib import Path
from sim.processes.sweep import measured

if __name__ == "__main__":
    list(measured(Path(sys.argv[1]), {"a": 60.0}, time.sleep, workers=1))
"""


def test_no_cell_outlives_a_comparison_that_is_killed(tmp_path):
    script = tmp_path / "held.py"
    script.write_text(HELD)
    with subprocess.Popen([sys.executable, script, tmp_path / "log"]) as held:
        comparison, deadline = psutil.Process(held.pid), time.monotonic() + 20
        while len(started := comparison.children()) < 2:  # a cell, and Python's resource tracker
            assert time.monotonic() < deadline, f"only {started} began"
            time.sleep(0.05)
        time.sleep(1)  # it is asleep in its cell
        held.kill()
    gone, left = psutil.wait_procs(started, timeout=10)
    assert not left, f"{left} are left, {gone} are gone"
