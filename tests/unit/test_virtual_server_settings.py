"""A virtual fleet begins, solves its first head and is scored as `server` says, like a fleet of processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetfl.config import ConfigError
from fleetfl.evaluation.held_out import HeldOut
from fleetfl.models import ModelConfig
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.vectors import Layout
from sim.fleet.run import FleetResult, simulate
from sim.fleet.scenario import scenario_of
from sim.world import CLASSES

pytestmark = pytest.mark.unit
MODEL = {"classes": list(CLASSES), "adapter": {"kind": "lora", "rank": 1}}


def ran(
    folder: Path, *, server: dict[str, Any], agent: dict[str, Any] | None = None, **sim: Any
) -> FleetResult:
    """Four cameras and the shipped ViT."""
    tree = {
        "fleet": "f",
        "seed": 1,
        "model": MODEL,
        "server": {"aggregator": {"kind": "fedbuff", "goal": 2}, **server},
        "vehicle": {
            "trainer": {"local_steps": 1, "batch_size": 2},
            "agent": {"status_s": 3600, "resend_s": 60, **(agent or {})},
        },
        "sim": {
            "clock": "virtual",
            "num_vehicles": 4,
            "dataset": {"kind": "drone_world", "num_initial": 20, "num_held_out": 20},
            "links": [{"kind": "instant"}],
            "stop": {"updates": 4},
            **sim,
        },
    }
    return simulate(scenario_of(tree, "test"), folder=folder)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_first_release_is_the_head_of_the_vehicles_sums(tmp_path: Path) -> None:
    """Three vehicles' sums make version 1, whose head alone differs from version 0."""
    made = ran(
        tmp_path,
        server={"closed_form": {"vehicles": 3}},
        agent={"sums_of_frames": 10},
        stop={"releases": 1},
    )
    accepted = [event for event in events(tmp_path) if event["event"] == "accepted"]
    assert [event["num_examples"] for event in accepted] == [10] * 3
    assert made.releases == 1
    assert made.curve[0].accuracy != made.curve[-1].accuracy


def test_training_goes_on_from_that_head(tmp_path: Path) -> None:
    ran(
        tmp_path,
        server={"closed_form": {"vehicles": 4}},
        agent={"sums_of_frames": 10},
        stop={"releases": 2},
        participation={"kind": "sampled", "concurrency": 2},
    )
    accepted = [event for event in events(tmp_path) if event["event"] == "accepted"]
    assert [event["num_examples"] for event in accepted[-2:]] == [2] * 2
    assert {event["base"] for event in accepted[-2:]} == {1}


def test_it_begins_with_the_initial_vector_and_is_scored_on_the_held_out_frames(
    tmp_path: Path,
) -> None:
    """A head that favours class 7 alone is right on frames that are all of class 7."""
    model = ModelConfig.model_validate({**MODEL, "precision": "float32"}).build(seed=1)
    bias = np.zeros(len(CLASSES), np.float32)
    bias[7] = 9
    tensors = {**model.layout.unflatten(model.vector()), "head.bias": bias}
    write_adapter(tmp_path / "start.safetensors", model.layout, model.layout.flatten(tensors))
    images = np.zeros((4, 64, 64, 3), np.uint8)
    HeldOut(images, np.full(4, 7), np.full(4, "fog")).save(tmp_path / "held.npz")
    server = {
        "initial": str(tmp_path / "start.safetensors"),
        "held_out": str(tmp_path / "held.npz"),
    }
    made = ran(tmp_path / "run", server=server)
    assert made.curve[0].accuracy == 1.0
    assert made.curve[0].by_condition == {"fog": 1.0}


def test_an_initial_vector_of_another_model_is_named(tmp_path: Path) -> None:
    other = Layout.flat(3)
    write_adapter(tmp_path / "other.safetensors", other, np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match=r"server\.initial: .*other\.safetensors does not fit"):
        ran(tmp_path / "run", server={"initial": str(tmp_path / "other.safetensors")})
