"""Numbers for each picture: scaled to a range or on a circle, right within a tolerance."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fleetfl.config import ConfigError, load
from fleetfl.models import ModelConfig
from fleetfl.tasks.regression import Config, Target
from sim import world
from sim.fleet.run import simulate
from sim.fleet.scenario import read_scenario

pytestmark = pytest.mark.unit
ALTITUDE = {"name": "altitude", "unit": "m", "low": 0, "high": 80, "tolerance": 5}
HEADING = {"name": "heading", "unit": "deg", "period": 360, "tolerance": 30, "mirror": "negate"}
TASK = Config.model_validate({"numbers": [ALTITUDE, HEADING]}).build(())
SCENARIO = Path(__file__).parents[2] / "configs/virtual-regression.yaml"


def test_outputs_are_scaled_to_the_range_and_angles_to_a_circle():
    """Output 0.5 of -1..1 is 60 of 0..80; cosine 0 and sine -1 are -90 of 360 degrees."""
    (row,) = TASK.predictions(torch.tensor([[0.5, 0.0, -1.0]])).numpy()
    assert row.tolist() == pytest.approx([60.0, -90.0])
    assert TASK.loss(torch.tensor([[0.5, 0.0, -1.0]]), torch.tensor([[60.0, 270.0]])) < 1e-12


def test_errors_on_a_circle_go_the_short_way():
    """170 and -165 are 25 degrees apart, within 30; 44 and 50 m are 6 apart, beyond 5: one is right."""
    told, true = np.array([[44.0, 170.0]]), np.array([[50.0, -165.0]])
    assert TASK.scores(told, true).tolist() == [0.5]


def test_a_mirrored_frame_has_the_negative_heading_and_the_same_altitude():
    given = torch.tensor([[10.0, 30.0], [20.0, -40.0]])
    flipped = TASK.mirrored(given, torch.tensor([True, False]))
    assert flipped.tolist() == [[10.0, -30.0], [20.0, -40.0]]


def test_its_numbers_are_part_of_what_a_vector_means():
    """A vehicle with another range or unit is refused, as one with other classes is."""

    def layout(**changes):
        task = {"kind": "regression", "numbers": [{**ALTITUDE, **changes}]}
        return ModelConfig.model_validate({"task": task}).build().layout

    assert layout().fingerprint == layout(tolerance=9).fingerprint
    assert layout().fingerprint != layout(high=90).fingerprint
    assert layout().fingerprint != layout(unit="ft").fingerprint


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"task": {"kind": "regression", "numbers": []}}, "numbers"),
        ({"task": {"kind": "regression", "numbers": [ALTITUDE, ALTITUDE]}}, "must differ"),
        (
            {"task": {"kind": "regression", "numbers": [{**ALTITUDE, "high": 0}]}},
            "low 0 is not below high 0",
        ),
        (
            {"task": {"kind": "regression", "numbers": [ALTITUDE]}, "classes": ["a", "b"]},
            "regression has none",
        ),
        ({"classes": ["a"]}, "model.classes: got 1, expected at least 2"),
        ({}, "model.classes: got 0, expected at least 2"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, model, why):
    (tmp_path / "x.yaml").write_text(
        json.dumps({"fleet": "f", "model": model, "server": {"state": "s"}})
    )
    from actors.config import ServerConfig

    with pytest.raises(ConfigError, match=why):
        load(tmp_path / "x.yaml", "server", ServerConfig)


def test_a_closed_form_head_is_for_classification_alone(tmp_path):
    from actors.config import ServerConfig

    model = {"task": {"kind": "regression", "numbers": [ALTITUDE]}}
    tree = {
        "fleet": "f",
        "model": model,
        "transport": {"kind": "memory"},
        "server": {"state": "s", "closed_form": {"vehicles": 2}},
    }
    (tmp_path / "x.yaml").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"closed_form.*regression"):
        load(tmp_path / "x.yaml", "server", ServerConfig)


def test_the_drone_world_knows_its_poses():
    """The higher the camera, the smaller a car: altitudes are those of the frames that `render` gives."""
    labels = np.zeros(200, int)
    poses = world.poses(labels, seed=5)
    assert poses.shape == (200, 2)
    assert (poses[:, 0] > 1).all()
    assert -180 <= poses[:, 1].min() < -90 < 90 < poses[:, 1].max() <= 180
    np.testing.assert_array_equal(poses, world.poses(labels, seed=5))
    np.testing.assert_array_equal(poses[:7], world.poses(labels[:7], seed=5))


def test_a_regression_fleet_learns_on_virtual_time(tmp_path):
    """From the shipped settings, shortened: the task reaches training, scores and events by itself."""
    small = ["sim.stop={updates: 24}", "sim.dataset.num_initial=300", "sim.num_vehicles=4"]
    result = simulate(
        read_scenario(SCENARIO, [*small, "sim.executor={kind: serial}"]), folder=tmp_path
    )
    assert result.curve[-1].accuracy > 0.3
    accepted = [vehicle.outcomes.get("accepted", 0) for vehicle in result.vehicles.values()]
    assert sum(accepted) >= 16  # of 24; who ends the run waits for some receipts


def test_a_target_without_a_range_is_refused():
    with pytest.raises(ValueError, match="is not below"):
        Target.model_validate({"name": "x", "low": 2, "high": 1, "tolerance": 1})
