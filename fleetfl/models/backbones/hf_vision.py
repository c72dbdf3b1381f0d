"""The vision tower of a transformers model: CLIP, SigLIP, DINOv2, ViT, from the hub or a local folder."""

from pathlib import Path
from typing import Literal

from fleetfl.models.backbones import Backbone, BackboneConfig


class Config(BackboneConfig):
    """Settings of a transformers vision model."""

    kind: Literal["hf_vision"] = "hf_vision"
    name: str
    """Name on the hub, such as `openai/clip-vit-base-patch32`, or a folder that `save_pretrained` wrote.

    LoRA's targets are then called q_proj, k_proj, v_proj, out_proj, fc1, fc2 (CLIP, SigLIP); other models
    name their layers as the installed transformers does, which an unknown target is answered with."""
    checkpoint: Path | None = None
    """File of local weights in place of the model's own, such as `fleetfl model export --merged` writes."""
    pooler: bool = True
    """Whether features are the pooler's output; false takes the first token's, for a model whose checkpoint
    has no pooler."""

    def build(self) -> Backbone:
        from fleetfl.models.picture_processor import pictures_of
        from fleetfl.models.probe import num_features
        from fleetfl.models.vision_tower import computed, loaded
        from fleetfl.models.weights_file import load_into, weights_sha256

        module, settings, processor = loaded(self.name, pooler=self.pooler)
        source = f"transformers model {self.name!r}"
        size = getattr(settings, "image_size", None)
        pictures = pictures_of(processor, size if isinstance(size, int) else None, source)
        if self.checkpoint is not None:
            load_into(module, self.checkpoint)
        return Backbone(
            module,
            num_features(module, pictures.size, source),
            pictures.size,
            mean=pictures.mean,
            std=pictures.std,
            weights_sha256=weights_sha256(module.state_dict()),
            architecture={"kind": self.kind, "pooler": self.pooler, **computed(settings)},
        )
