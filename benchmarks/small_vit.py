"""A ViT of 207,296 values (207,946 with a head of ten classes), 32 px, 64 tokens: for timing."""

from typing import Literal

from fleetfl.models.backbones import Backbone, BackboneConfig


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
