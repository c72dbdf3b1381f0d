"""A virtual fleet that trains on several cores: the same to the byte as on one, and nothing is left of it."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fleetfl import FleetflError
from fleetfl.models import ModelConfig
from sim import world
from sim.fleet.run import simulate
from sim.fleet.scenario import scenario_of
from sim.fleet.workers.process_pool import TrainingProcesses
from vehicle_agent.training import Config

pytestmark = pytest.mark.slow


def events(folder: Path, *, workers: int) -> bytes:
    tree = {
        "fleet": "f",
        "model": {"classes": list(world.CLASSES), "precision": "float32"},
        "vehicle": {"trainer": {"local_steps": 2, "batch_size": 2}},
        "sim": {
            "clock": "virtual",
            "num_vehicles": 6,
            "learning": {"kind": "vision", "held_out_frames": 10},
            "dataset": {"kind": "drone_world", "num_initial": 20, "num_held_out": 10},
            "stop": {"updates": 10},
            "executor": {"kind": "stacked", "workers": workers},
        },
    }
    simulate(scenario_of(tree, "test"), folder=folder)
    return (folder / "events.jsonl").read_bytes()


def test_what_lies_in_a_stack_does_not_depend_on_how_many_train(tmp_path: Path) -> None:
    assert events(tmp_path / "two", workers=2) == events(tmp_path / "none", workers=0)


HELD = """
import time, psutil
from fleetfl.models import ModelConfig
from sim import world
from sim.fleet.workers.process_pool import TrainingProcesses
from vehicle_agent.training import Config

if __name__ == "__main__":
    model = ModelConfig(classes=world.CLASSES)
    with TrainingProcesses(Config(batch_size=2), model, seed=0, workers=2) as trainers:
        trainers.rows_at_once
        print(*(each.pid for each in psutil.Process().children(recursive=True)), flush=True)
        time.sleep(60)
"""


def trainers_of(root: psutil.Process) -> list[psutil.Process]:
    """Its grandchildren: its children are what forks them, and Python's resource tracker."""
    return [each for each in root.children(recursive=True) if each.ppid() != root.pid]


def test_a_killed_process_is_told() -> None:
    config, model = Config(batch_size=2), ModelConfig(classes=world.CLASSES)
    with TrainingProcesses(config, model, seed=0, workers=2) as processes:
        assert processes.rows_at_once >= 1
        for trainer in trainers_of(psutil.Process()):
            trainer.kill()

        def asked_again() -> None:
            """The pool hears of it a moment later, and takes work until then."""
            for _ in range(100):
                processes.submit([])()
                time.sleep(0.1)

        with pytest.raises(FleetflError, match="a process that trains was killed"):
            asked_again()


def test_none_outlives_a_simulation_that_is_killed(tmp_path: Path) -> None:
    """Three: one that trains (the other comes with work for it), its parent, and Python's tracker."""
    script = tmp_path / "held.py"
    script.write_text(HELD)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        pids = [int(pid) for pid in held.stdout.readline().split()]
        held.kill()
    assert len(pids) == 3
    deadline = time.monotonic() + 10
    while left := [pid for pid in pids if psutil.pid_exists(pid)]:
        assert time.monotonic() < deadline, f"{left} of {pids} are left"
        time.sleep(0.1)
