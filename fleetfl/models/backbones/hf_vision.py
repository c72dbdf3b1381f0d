"""The vision tower of a transformers model: CLIP, SigLIP, DINOv2, ViT, from the hub or a local folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fleetfl.models.backbones import Backbone, BackboneConfig

if TYPE_CHECKING:
    from torch import nn

TOWERS = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
"""Model types whose checkpoint holds a text tower beside the one we want; others are taken whole."""


class Config(BackboneConfig):
    kind: Literal["hf_vision"] = "hf_vision"
    name: str
    """The hub's name, such as `openai/clip-vit-base-patch32`, or a folder that `save_pretrained` wrote.

    LoRA's targets are then called q_proj, k_proj, v_proj, out_proj, fc1, fc2 (CLIP, SigLIP) or query,
    key, value, dense (ViT, DINOv2)."""

    def build(self) -> Backbone:
        import transformers  # heavy, and not on every vehicle

        from fleetfl.models import ModelError
        from fleetfl.models.vision_tower import VisionTower

        offline = {"local_files_only": True} if Path(self.name).is_dir() else {}
        try:
            settings: Any = transformers.AutoConfig.from_pretrained(self.name, **offline)
            loader: Any = getattr(transformers, TOWERS.get(settings.model_type, "AutoModel"))
            tower: nn.Module = loader.from_pretrained(self.name, **offline)
            images: Any = transformers.AutoImageProcessor.from_pretrained(self.name, **offline)
        except (OSError, ValueError) as failed:
            raise ModelError(
                f"transformers model {self.name!r} cannot be made: {failed}"
            ) from failed
        vision = getattr(settings, "vision_config", settings)
        return Backbone(
            VisionTower(tower),
            vision.hidden_size,
            vision.image_size,
            mean=tuple(images.image_mean),
            std=tuple(images.image_std),
        )
