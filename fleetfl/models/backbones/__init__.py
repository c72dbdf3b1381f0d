"""Backbones: images in, one feature vector an image out. Their weights are frozen."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Backbone:
    """A module float32 [B, 3, S, S] -> float32 [B, num_features], and how it likes its images."""

    module: "torch.nn.Module"
    num_features: int
    image_size: int
    """S, pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of each colour on the scale 0 to 1, subtracted and divided by."""


class BackboneConfig(PluginConfig):
    """Settings of one backbone."""

    def build(self) -> Backbone:
        """Load it. Raises ModelError for a missing or unfit checkpoint."""
        raise NotImplementedError


AnyBackbone = Annotated[SerializeAsAny[BackboneConfig], chosen_from("fleetfl.models.backbones")]
