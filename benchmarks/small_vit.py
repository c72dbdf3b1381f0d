"""The work that simulators are compared by: one client's training of a small ViT, and nothing around it.

The ViT is of 207,296 values (207,946 with a head of ten classes), 32 px, 64 tokens, random.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from fleetfl.models import ModelConfig
from fleetfl.models.backbones import Backbone, BackboneConfig
from vehicle_agent.sensors import Frames
from vehicle_agent.training import Assignment
from vehicle_agent.training import Config as TrainerConfig

if TYPE_CHECKING:
    from fleetfl.models.adapted import AdaptedModel

EXAMPLES = 32
"""Images a client trains on, once."""


class Config(BackboneConfig):
    kind: Literal["small_vit"] = "small_vit"

    def build(self) -> Backbone:
        from timm.models.vision_transformer import VisionTransformer  # torch: only where it is made

        module = VisionTransformer(
            img_size=32,
            patch_size=4,
            embed_dim=64,
            depth=4,
            num_heads=4,
            class_token=False,
            global_pool="avg",
            num_classes=0,
        )
        half = (0.5, 0.5, 0.5)
        return Backbone(module, module.num_features, 32, mean=half, std=half)


@cache
def model_config() -> ModelConfig:
    classes = tuple("0123456789")
    return ModelConfig(backbone=Config(), classes=classes, precision="float32")


def trainer_config(batch_size: int) -> TrainerConfig:
    return TrainerConfig(local_steps=EXAMPLES // batch_size, batch_size=batch_size)


@cache
def model() -> AdaptedModel:
    """One a process, on one thread."""
    return model_config().build(threads=1)


def assignment(client: int, start: np.ndarray, batch_size: int) -> Assignment:
    """The client's images, the same wherever it is trained."""
    from vehicle_agent.trainer import Trainer

    rng = np.random.default_rng(client)
    images = rng.integers(0, 256, (EXAMPLES, 32, 32, 3), np.uint8)
    frames = Frames(images, rng.integers(0, 10, EXAMPLES), 0.0, 1.0)
    return Trainer(trainer_config(batch_size), model()).assignment(start, frames, seed=client)
