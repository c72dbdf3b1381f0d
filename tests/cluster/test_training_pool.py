"""Trainings on Ray actors: the same results in the same order, wherever they ran."""

import numpy as np
import pytest

from fleetfl.models import ModelConfig
from sim import world
from sim.fleet.workers.ray_pool import TrainingPool
from sim.fleet.workers.stacked_model import train_together
from vehicle_agent.sensors import Frames
from vehicle_agent.trainer import Trainer
from vehicle_agent.training import Config

pytestmark = pytest.mark.cluster


def test_the_pool_gives_what_training_here_gives():
    model_config = ModelConfig(classes=world.CLASSES, precision="float32")
    config = Config(batch_size=2, local_steps=2)
    model = model_config.build(seed=3)
    rng = np.random.default_rng(0)
    todo = []
    for seed in range(5):
        images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
        frames = Frames(images, rng.integers(0, 10, 4), 0.0, 1.0)
        trainer = Trainer(config, model)
        todo.append(trainer.assignment(model.vector(), frames, seed=seed))
    with TrainingPool(config, model_config, seed=3, workers=2, rows=4) as pool:
        there = pool.train(todo)
        submitted = pool.submit(todo)()
    here = train_together(config, model, todo, rows=4)
    assert len(there) == 5
    for mine, *others in zip(here, there, submitted, strict=True):
        for theirs in others:
            np.testing.assert_allclose(theirs.delta, mine.delta, rtol=0, atol=1e-6)
            assert theirs.loss == pytest.approx(mine.loss, abs=1e-5)
