"""A virtual fleet that trains on several cores: the same to the byte as on one."""

from pathlib import Path

import pytest

from sim import world
from sim.fleet.run import simulate
from sim.fleet.scenario import scenario_of

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
            "dataset": {"kind": "drone_world", "num_factory": 20, "num_held_out": 10},
            "stop": {"updates": 10},
            "trainings": {"kind": "together", "workers": workers},
        },
    }
    simulate(scenario_of(tree, "test"), folder=folder)
    return (folder / "events.jsonl").read_bytes()


def test_what_lies_in_a_stack_does_not_depend_on_how_many_train(tmp_path: Path) -> None:
    assert events(tmp_path / "two", workers=2) == events(tmp_path / "none", workers=0)
