"""Many vehicles trained in one call: each gets what it would have got alone."""

import numpy as np
import pytest

from sim import world
from sim.fleet.workers.stacked_model import rows_for, stacks, train_together
from vehicle_agent.sensors import Frames
from vehicle_agent.trainer import Trainer, train
from vehicle_agent.training import Config

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model(model_config):
    return model_config.build(seed=0)


def assignments(model, config, *, counts):
    """Vehicles with start, frames, class shares and seed of their own; the second one starts stale."""
    rng = np.random.default_rng(0)
    found = []
    for number, count in enumerate(counts):
        labels = rng.integers(0, 3 + number, count)
        frames = Frames(world.render(labels, seed=number, size=32), labels, 0.0, 1.0)
        start = model.vector() + rng.normal(0, 0.02, model.layout.size).astype(np.float32)
        found.append(Trainer(config, model).assignment(start, frames, seed=number))
    return found


def assert_same(together, alone):
    """To 1e-5. But AdamW divides a gradient that is all but zero by itself, and its rounding with it:
    one value in 10,000 may be off by more.
    """
    off = np.abs(together.delta - alone.delta)
    assert np.quantile(off, 0.9999) < 1e-5
    assert off.max() < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"patch_keep_rate": 0.5, "weight_decay": 0.1, "clip_norm": 0.1},
        {"calibrate": False, "mirror": False, "clip_norm": 100.0},
    ],
)
def test_together_equals_one_by_one(model, settings):
    """12 frames in batches of 5: the last batch is a short one."""
    config = Config(batch_size=5, **settings)
    todo = assignments(model, config, counts=[12, 12, 12])
    together = train_together(config, model, todo, rows=64)
    for number, assignment in enumerate(todo):
        alone = train(config, model, assignment)
        assert_same(together[number], alone)
        assert together[number].loss == pytest.approx(alone.loss, abs=1e-5)
        assert together[number].local_steps == alone.local_steps == 3
        assert together[number].num_examples == alone.num_examples == 12
    assert np.abs(together[0].delta - together[1].delta).max() > 1e-3


def test_vehicles_with_other_numbers_of_frames_keep_their_order(model):
    config = Config(batch_size=4)
    todo = assignments(model, config, counts=[8, 4, 8])
    together = train_together(config, model, todo, rows=64)
    assert [trained.num_examples for trained in together] == [8, 4, 8]
    for number, assignment in enumerate(todo):
        alone = train(config, model, assignment)
        assert_same(together[number], alone)


def test_one_that_diverges_takes_no_other_with_it(model):
    config = Config(batch_size=4)
    todo = assignments(model, config, counts=[4, 4])
    todo[0].start[:] = np.nan
    broken, sound = train_together(config, model, todo, rows=64)
    assert not np.isfinite(broken.delta).any()
    assert_same(sound, train(config, model, todo[1]))


def test_a_stack_has_so_many_vehicles_that_a_step_keeps_to_its_rows(model):
    """Batches of 16, 40 rows: two vehicles; batches larger than that: one by one."""
    config = Config(batch_size=16)
    todo = assignments(model, config, counts=[16, 16, 16, 8])
    assert list(stacks(config, todo, rows=40)) == [[3], [0, 1], [2]]
    assert [len(part) for part in stacks(config, todo, rows=8)] == [1, 1, 1, 1]


def test_training_together_leaves_the_model_as_it_was(model):
    config = Config(batch_size=4)
    before = model.vector()
    train_together(config, model, assignments(model, config, counts=[4, 4]), rows=64)
    np.testing.assert_array_equal(model.vector(), before)


def test_the_shipped_vit_is_stacked_only_for_tiny_batches(model):
    """349 million operations an image: 9 images a step, so no stack from batches of 5 on."""
    assert rows_for(model) == 9
