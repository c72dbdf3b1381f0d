"""A transformers vision model as a plain module: pixels in, one feature vector an image out."""

from typing import Any

import torch
from torch import nn


class VisionTower(nn.Module):
    """float32 [B, 3, S, S] -> float32 [B, D]: the pooled output, or the first token's where there is none."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out = self.tower(pixel_values=pixels)
        pooled = getattr(out, "pooler_output", None)
        return out.last_hidden_state[:, 0] if pooled is None else pooled
