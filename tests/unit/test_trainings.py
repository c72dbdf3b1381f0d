"""Trainings of virtual vehicles ahead of need: what each gives is what it would have given in its turn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetfl.config import ConfigError
from sim import world
from sim.fleet.executors.serial import Serial
from sim.fleet.executors.stacked import Stacked
from sim.fleet.run import FleetResult, simulate
from sim.fleet.scenario import scenario_of
from sim.sensors.drone_camera import Config as Camera
from vehicle_agent.trainer import Trainer, train
from vehicle_agent.training import Assignment, Config

pytestmark = pytest.mark.unit


def ran(folder: Path, **sim: Any) -> FleetResult:
    """Twelve updates of the shipped ViT, four frames each."""
    tree = {
        "fleet": "f",
        "model": {"classes": list(world.CLASSES), "precision": "float32"},
        "server": {"aggregator": {"kind": "fedbuff", "goal": 3}, "release": {"kind": "float32"}},
        "vehicle": {
            "codec": {"kind": "float32"},
            "trainer": {"local_steps": 2, "batch_size": 2, "patch_keep_rate": 0.5},
            "agent": {"status_s": 3600},
        },
        "sim": {
            "clock": "virtual",
            "num_vehicles": 6,
            "learning": {"kind": "vision", "held_out_frames": 10},
            "dataset": {"kind": "drone_world", "num_initial": 20, "num_held_out": 10},
            "stop": {"updates": 12},
            "evaluate_every_s": 3600,
            "participation": {"kind": "sampled", "concurrency": 5},
            "lost_share": 0.1,
            **sim,
        },
    }
    return simulate(scenario_of(tree, "test"), folder=folder)


def test_a_fleet_that_trains_together_is_the_same_twice_and_as_the_one_in_turn(
    tmp_path: Path,
) -> None:
    """The clock knows nothing of where trainings are worked out, so all but losses' last digits agree."""
    together = {"kind": "stacked", "workers": 0}
    first, again = (ran(tmp_path / name, executor=together) for name in "ab")
    in_turn = ran(tmp_path / "c")
    assert (tmp_path / "a/events.jsonl").read_bytes() == (tmp_path / "b/events.jsonl").read_bytes()
    assert first == again
    assert (first.virtual_s, first.staleness) == (in_turn.virtual_s, in_turn.staleness)
    assert first.vehicles == in_turn.vehicles


class Stacks:
    """Trains a stack when it is asked for, and notes how large each was."""

    def __init__(self, config: Config, model: Any, *, rows_at_once: int) -> None:
        self.config, self.model, self.rows_at_once = config, model, rows_at_once
        self.sizes: list[int] = []

    def submit(self, todo: list[Assignment]) -> Any:
        self.sizes.append(len(todo))
        return lambda: [train(self.config, self.model, each) for each in todo]


@pytest.fixture(scope="module")
def config() -> Config:
    return Config(local_steps=1, batch_size=2)


@pytest.fixture(scope="module")
def model(model_config):
    return model_config.build(seed=0)


def frames(seed: int):
    return Camera(seed=seed, shares=(0.5, 0.5, *[0.0] * 8)).build(world.CLASSES).read(2)


def test_a_stack_starts_when_it_is_full_or_when_its_first_result_is_needed(config, model) -> None:
    stacks = Stacks(config, model, rows_at_once=5)
    together = Stacked(stacks, batch_size=2)
    start = model.vector()
    begun = [together.begin(Trainer(config, model), start, frames(n), seed=n) for n in (0, 1, 2)]
    assert stacks.sizes == [2]
    results = [result() for result in reversed(begun)]
    assert stacks.sizes == [2, 1]
    for number, result in enumerate(reversed(results)):
        in_turn = Serial().begin(Trainer(config, model), start, frames(number), seed=number)()
        np.testing.assert_array_equal(result.delta, in_turn.delta)
        assert result.class_counts == in_turn.class_counts


def test_frames_of_a_training_that_nobody_asks_for_do_not_count_for_the_next(config, model) -> None:
    stacks, trainer = Stacks(config, model, rows_at_once=1), Trainer(config, model)
    together = Stacked(stacks, batch_size=2)
    together.begin(trainer, model.vector(), frames(0), seed=0)
    assert trainer.counts.tolist() == [1.0] * 10
    together.begin(trainer, model.vector(), frames(1), seed=1)()
    assert trainer.counts.sum() == 12


def test_what_trains_no_model_cannot_train_together(tmp_path: Path) -> None:
    tree = {
        "fleet": "f",
        "model": {"classes": ["a", "b"]},
        "sim": {
            "clock": "virtual",
            "learning": {"kind": "synthetic"},
            "executor": {"kind": "stacked"},
        },
    }
    with pytest.raises(ConfigError, match=r"synthetic.*serial"):
        simulate(scenario_of(tree, "test"), folder=tmp_path)
