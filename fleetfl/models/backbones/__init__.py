"""Backbones: images in, one feature vector an image out. Their weights are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

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
    weights_sha256: str = ""
    """Of the frozen weights (`weights_sha256`) before anything was resampled, which processors round
    differently; where it is empty the module's own are taken."""
    architecture: Mapping[str, Any] | None = None
    """What is computed with those weights, plain values; where it is None all settings are taken."""


class BackboneConfig(PluginConfig):
    """Settings of one backbone."""

    def build(self) -> Backbone:
        """Load it. Raises ModelError for a missing or unfit checkpoint."""
        raise NotImplementedError


AnyBackbone = Annotated[SerializeAsAny[BackboneConfig], chosen_from("fleetfl.models.backbones")]
