"""The small ViT that ships in the package: 2.7 M parameters, 64 px, 64 tokens, no download.

`python -m sim.baselines.pretrain` made its weights; docs/results/backbone.md has recipe and scores.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fleetfl.models.backbones import Backbone, BackboneConfig

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

WEIGHTS = Path(__file__).parents[1] / "weights" / "fleet_vit.fp16.safetensors"


class Config(BackboneConfig):
    """Settings of the shipped ViT."""

    kind: Literal["fleet_vit"] = "fleet_vit"
    checkpoint: Path | None = None
    """File of local weights in place of the shipped ones, such as `fleetfl model export --merged` writes."""

    def build(self) -> Backbone:
        from fleetfl.models.weights_file import load_into  # torch: only where a model is made

        module = architecture()
        loaded = load_into(module, self.checkpoint or WEIGHTS)
        half = (0.5, 0.5, 0.5)
        return Backbone(
            module,
            module.num_features,
            64,
            mean=half,
            std=half,
            weights_sha256=loaded,
            architecture={"kind": self.kind},
        )


def architecture() -> "VisionTransformer":
    """The network with random weights: mean-pooled tokens, no class token, no head."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=64,
        patch_size=8,
        embed_dim=192,
        depth=6,
        num_heads=3,
        class_token=False,
        global_pool="avg",
        num_classes=0,
    )
