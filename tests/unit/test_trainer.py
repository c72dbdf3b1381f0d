"""Local training: what comes out moves downhill, repeats itself, and keeps frames where they are."""

import numpy as np
import pytest
import torch

from fleetfl.closed_form import SufficientStatistics, features_of, unpacked
from fleetfl.models.kept_patches import KeptPatches
from sim import world
from vehicle_agent.sensors import Frames
from vehicle_agent.trainer import Trainer
from vehicle_agent.training import Config

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def frames():
    labels = np.arange(64) % 10
    return Frames(world.render(labels, seed=1), labels.astype(np.int64), 0.0, 1.0)


def loss_of(model, vector, frames):
    model.load(vector)
    chances = model.predictions(frames.images)
    return -np.log(chances[np.arange(len(frames.labels)), frames.labels]).mean()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_delta_lowers_the_loss(model_config, frames, optimizer):
    model = model_config.build(seed=0)
    rate = {"adamw": 2e-3, "sgd": 0.1}[optimizer]
    trainer = Trainer(
        Config(local_steps=4, batch_size=16, optimizer=optimizer, learning_rate=rate), model
    )
    start = model.vector()
    trained = trainer.train(start, frames, seed=3)
    assert trained.delta.shape == start.shape
    assert (trained.num_examples, trained.local_steps) == (64, 4)
    # The head starts at zero, so every class has chance 1/10: a loss of ln 10.
    assert loss_of(model, start, frames) == pytest.approx(np.log(10), abs=1e-5)
    assert loss_of(model, start + trained.delta, frames) < np.log(10) - 0.1


def test_same_seed_same_delta(model_config, frames):
    deltas = []
    for seed in (5, 5, 6):
        model = model_config.build(seed=0)
        trainer = Trainer(Config(batch_size=32), model)
        deltas.append(trainer.train(model.vector(), frames, seed=seed).delta)
    np.testing.assert_array_equal(deltas[0], deltas[1])
    assert (deltas[0] != deltas[2]).any()


def test_training_leaves_no_trace_but_the_delta(model_config, frames):
    """The next training from the same start, with the same frames and seed, gives the same."""
    model = model_config.build(seed=0)
    trainer = Trainer(Config(batch_size=32, calibrate=False), model)
    start = model.vector()
    first = trainer.train(start, frames, seed=1).delta
    np.testing.assert_array_equal(trainer.train(start, frames, seed=1).delta, first)


def test_calibration_keeps_the_head_from_learning_how_often(model_config):
    """A vehicle that meets class 0 nine times in ten: without calibration its head's bias says so."""
    labels = np.array([0] * 58 + [1] * 6)
    frames = Frames(world.render(labels, seed=2), labels.astype(np.int64), 0.0, 1.0)
    gaps = {}
    for calibrate in (True, False):
        model = model_config.build(seed=0)
        trainer = Trainer(Config(batch_size=16, calibrate=calibrate, learning_rate=0.01), model)
        start = model.vector()
        bias = model.layout.unflatten(trainer.train(start, frames, seed=0).delta)["head.bias"]
        gaps[calibrate] = bias[0] - bias[1]
    assert gaps[True] < gaps[False]


def test_no_frames_is_an_error(model_config, frames):
    model = model_config.build(seed=0)
    nothing = Frames(frames.images[:0], frames.labels[:0], 0.0, 0.0)
    with pytest.raises(ValueError, match="no frames"):
        Trainer(Config(), model).train(model.vector(), nothing, seed=0)


def test_kept_patches_are_a_share_of_the_patches_and_all_prefix_tokens():
    """2 prefix tokens and half of 10 patches: 7 tokens, each from its own image."""
    tokens = torch.arange(3 * 12 * 2, dtype=torch.float32).reshape(3, 12, 2)
    kept = KeptPatches(0.5, 2, [torch.Generator().manual_seed(0)])(tokens)
    assert kept.shape == (3, 7, 2)
    assert torch.equal(kept[:, :2], tokens[:, :2])
    for image in range(3):
        patches = {tuple(p) for p in tokens[image, 2:].tolist()}
        assert {tuple(p) for p in kept[image, 2:].tolist()} <= patches


def test_training_on_half_of_the_patches_repeats_itself_and_leaves_inference_whole(
    model_config, frames
):
    model = model_config.build(seed=0)
    before, start = model.predictions(frames.images), model.vector()
    config = Config(local_steps=2, batch_size=16, patch_keep_rate=0.5)
    deltas = [Trainer(config, model).train(start, frames, seed=1).delta for _ in range(2)]
    np.testing.assert_array_equal(deltas[0], deltas[1])
    whole = Trainer(Config(local_steps=2, batch_size=16), model).train(start, frames, seed=1)
    assert not np.array_equal(deltas[0], whole.delta)
    model.load(start)
    np.testing.assert_array_equal(model.predictions(frames.images), before)


def test_sums_are_those_of_the_features_that_the_vector_makes(model_config, frames):
    model = model_config.build(seed=0)
    summed = Trainer(Config(), model).sums(model.vector(), frames)
    features = model.features(torch.from_numpy(frames.images)).detach().numpy()
    name = features_of(model.vector(), model.layout)
    sums = unpacked(summed.body, model.layout, features=name, num_examples=64)
    expected = SufficientStatistics.of(features, frames.labels, 10)
    np.testing.assert_allclose(sums.gram, expected.gram, atol=2)
    np.testing.assert_array_equal(sums.cross[-1] >> 4, np.bincount(frames.labels))
    # The head starts at zero.
    assert summed.loss == pytest.approx(np.log(10), abs=1e-5)
