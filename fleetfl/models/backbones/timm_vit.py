"""Any ViT that timm knows by name, from the model hub or from a local checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fleetfl.models.backbones import Backbone, BackboneConfig

if TYPE_CHECKING:
    from torch import nn


class Config(BackboneConfig):
    """Settings of a ViT of timm."""

    kind: Literal["timm_vit"] = "timm_vit"
    name: str
    """Name of the model in timm, such as `vit_small_patch14_dinov2`."""
    checkpoint: Path | None = None
    """File of local weights in timm's names (safetensors or torch), also with a classification head or inside
    a training script's checkpoint, or what `fleetfl model export --merged` wrote; without it, the hub's
    pre-trained ones."""
    image_size: int | None = Field(default=None, ge=16)
    """Side of the square images, pixels; None takes the size that the model was trained with. Larger images
    show more and cost more, and position embeddings are resampled to fit."""

    def build(self) -> Backbone:
        import timm  # heavy: only where a model is made
        from timm.data.config import resolve_model_data_config

        from fleetfl.models import ModelError
        from fleetfl.models.probe import num_features
        from fleetfl.models.weights_file import load_into, put_into

        if not timm.is_model(self.name):
            near = timm.list_models(f"*{self.name.split('.')[0][:12]}*")[:5]
            raise ModelError(f"timm knows no model {self.name!r}; near it: {near}")
        options: dict[str, Any] = {} if self.image_size is None else {"img_size": self.image_size}
        if self.checkpoint is not None:
            module = self._made(pretrained=False, **options)
            sha256 = load_into(module, self.checkpoint)
        else:
            # At its own size, so that what is resampled is known as it came.
            sized = self._made(pretrained=False, **options) if options else None
            native = self._made(pretrained=True)
            module = native if sized is None else sized
            sha256 = put_into(module, native.state_dict(), f"timm model {self.name}")
        data = resolve_model_data_config(module)
        sides = {self.image_size} if self.image_size else set(data["input_size"][1:])
        if len(sides) != 1:
            raise ModelError(
                f"timm model {self.name} takes {data['input_size']}, expected a square"
            )
        size = int(sides.pop())
        about: dict[str, Any] = getattr(module, "pretrained_cfg", {})
        return Backbone(
            module,
            num_features(module, size, f"timm model {self.name}"),
            size,
            mean=data["mean"],
            std=data["std"],
            weights_sha256=sha256,
            architecture={
                "kind": self.kind,
                "name": about.get("architecture") or self.name.split(".")[0],
            },
        )

    def _made(self, *, pretrained: bool, **options: Any) -> "nn.Module":
        import timm

        from fleetfl.models import ModelError
        from fleetfl.models.weights_file import one_line

        try:
            return timm.create_model(self.name, pretrained=pretrained, num_classes=0, **options)
        except Exception as failed:  # the hub cannot be reached, the name is no ViT, a bad size
            raise ModelError(f"{self.name} cannot be made: {one_line(failed)}") from failed
