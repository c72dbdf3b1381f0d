"""Any ViT that timm knows by name, from the model hub or from a local checkpoint."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fleetfl.models.backbones import Backbone, BackboneConfig


class Config(BackboneConfig):
    kind: Literal["timm_vit"] = "timm_vit"
    name: str
    """timm's name, such as `vit_small_patch14_dinov2`."""
    checkpoint: Path | None = None
    """Local weights in timm's names (safetensors or torch); without it, the hub's pre-trained ones."""
    image_size: int | None = Field(default=None, ge=16)
    """Pixels; None for the size it was trained with. Position embeddings are resampled to fit."""

    def build(self) -> Backbone:
        import timm  # heavy: only where a model is made
        from timm.data.config import resolve_model_data_config

        from fleetfl.models import ModelError
        from fleetfl.models.checkpoint import load_into

        if not timm.is_model(self.name):
            near = timm.list_models(f"*{self.name.split('.')[0][:12]}*")[:5]
            raise ModelError(f"timm knows no model {self.name!r}; near it: {near}")
        options: dict[str, Any] = {} if self.image_size is None else {"img_size": self.image_size}
        try:
            module: Any = timm.create_model(
                self.name, pretrained=self.checkpoint is None, num_classes=0, **options
            )
        except (OSError, RuntimeError, TypeError) as failed:
            # OSError: the hub cannot be reached; the others: a name that is no ViT, or a bad size.
            raise ModelError(f"{self.name} cannot be made: {failed}") from failed
        if self.checkpoint is not None:
            load_into(module, self.checkpoint)
        data = resolve_model_data_config(module)
        size = self.image_size or data["input_size"][-1]
        return Backbone(module, module.num_features, size, mean=data["mean"], std=data["std"])
