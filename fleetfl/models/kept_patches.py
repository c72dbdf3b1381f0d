"""A part of an image's patches: cheaper training, and a regularizer (PatchDropout, arXiv:2208.07220)."""

import torch
from torch import nn


class KeptPatches(nn.Module):
    """Stands where a timm ViT has its `patch_drop`."""

    def __init__(self, share: float, num_prefix_tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.num_prefix_tokens, self.generator = share, num_prefix_tokens, generator

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """float [B, N, D] -> [B, K, D]: the prefix tokens and, drawn for each image, a share of the rest."""
        prefix, patches = tokens.tensor_split([self.num_prefix_tokens], dim=1)
        batch, count, width = patches.shape
        order = torch.rand(batch, count, generator=self.generator).argsort(dim=1)
        kept = order[:, : max(1, round(self.share * count))]
        patches = patches.gather(1, kept[:, :, None].expand(-1, -1, width))
        return torch.cat([prefix, patches], dim=1)
