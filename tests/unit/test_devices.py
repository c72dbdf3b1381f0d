"""A model is computed on one device, whichever it is. torch's meta device refuses mixtures of devices."""

import numpy as np
import pytest
import torch

from fleetfl.models import ModelConfig, ModelError
from fleetfl.models.devices import chosen_device, chosen_dtype
from vehicle_agent.sensors import Frames
from vehicle_agent.trainer import Trainer
from vehicle_agent.training import Config

pytestmark = pytest.mark.unit
CLASSES = {"classes": ["a", "b", "c"]}


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr("fleetfl.models.adapted.chosen_device", lambda name: torch.device("meta"))
    return ModelConfig.model_validate(CLASSES).build()


def test_every_tensor_of_a_model_is_on_its_device(model):
    assert {each.device.type for each in [*model.parameters(), *model.buffers()]} == {"meta"}
    assert {*model.trainable} == {name for name, _ in model.layout.shapes}


def test_pictures_of_any_size_are_moved_to_the_device_and_computed_there(model):
    for side in (64, 100):
        out = model(torch.zeros(2, side, side, 3, dtype=torch.uint8))
        assert (out.device.type, tuple(out.shape)) == ("meta", (2, 3))


@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_a_training_step_stays_on_the_device(model, monkeypatch, keep_rate):
    """The first step's gradient is there for each trained tensor; its loss is no number on meta."""
    steps = []

    def stop(self: torch.optim.Optimizer) -> None:
        steps.append({p.grad.device.type for p in model.trainable.values() if p.grad is not None})
        raise StopIteration

    monkeypatch.setattr(torch.optim.AdamW, "step", stop)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, most: None)
    frames = Frames(np.zeros((4, 64, 64, 3), np.uint8), np.array([0, 1, 2, 0]), 0.0, 0.0)
    trainer = Trainer(Config(batch_size=4, patch_keep_rate=keep_rate), model)
    with pytest.raises(StopIteration):
        trainer.train(np.zeros(model.layout.size, np.float32), frames, seed=1)
    assert steps == [{"meta"}]


def test_a_device_that_is_not_there_is_named_with_those_that_are():
    for name, is_there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if not is_there:
            with pytest.raises(
                ModelError, match=f"model.device '{name}': torch finds none here.*cpu"
            ):
                ModelConfig.model_validate({**CLASSES, "device": name}).build()
    assert chosen_device("cpu").type == "cpu"


def test_auto_takes_what_is_there_and_precision_follows_the_device():
    assert chosen_device("auto").type in ("cuda", "mps", "cpu")
    assert chosen_dtype("float32", torch.device("cuda")) == torch.float32
    assert chosen_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert chosen_dtype("auto", torch.device("mps")) == torch.float32


def test_the_same_bits_come_out_on_the_processor_whether_chosen_by_name_or_by_auto():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    if chosen_device("auto").type == "cpu":
        named = ModelConfig.model_validate({**CLASSES, "device": "cpu"}).build().predictions(images)
        np.testing.assert_array_equal(
            ModelConfig.model_validate(CLASSES).build().predictions(images), named
        )
