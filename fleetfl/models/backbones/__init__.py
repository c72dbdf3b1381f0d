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
    """A module float32 [B, 3, S, S] -> float32 [B, num_features], and the preprocessing that it expects."""

    module: "torch.nn.Module"
    num_features: int
    """Width of the feature vector of an image."""
    image_size: int
    """Side S of the square images, pixels."""
    mean: tuple[float, float, float]
    """Value subtracted from each colour on the scale 0 to 1."""
    std: tuple[float, float, float]
    """Value that each colour is divided by after that."""
    weights_sha256: str = ""
    """SHA-256 of the frozen weights (`weights_sha256`) before any were resampled, which processors round
    differently; empty takes that of the module's weights."""
    architecture: Mapping[str, Any] | None = None
    """Plain values that decide what is computed with those weights; None takes all of the settings."""


class BackboneConfig(PluginConfig):
    """Settings of one backbone."""

    def build(self) -> Backbone:
        """Load it. Raises ModelError for a missing or unfit checkpoint."""
        raise NotImplementedError


AnyBackbone = Annotated[SerializeAsAny[BackboneConfig], chosen_from("fleetfl.models.backbones")]
