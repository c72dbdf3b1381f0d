"""A part of an image's patches: cheaper training, and a regularizer (PatchDropout, arXiv:2208.07220)."""

from collections.abc import Sequence

import torch
from torch import nn


class KeptPatches(nn.Module):
    """Replaces a timm ViT's `patch_drop`; each generator draws for an equal part of the images."""

    def __init__(
        self, share: float, num_prefix_tokens: int, generators: Sequence[torch.Generator]
    ) -> None:
        super().__init__()
        self.share, self.num_prefix_tokens, self.generators = share, num_prefix_tokens, generators

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """float [B, N, D] -> [B, K, D]: the prefix tokens and, drawn for each image, a share of the rest."""
        prefix, patches = tokens.tensor_split([self.num_prefix_tokens], dim=1)
        batch, count, width = patches.shape
        part = batch // len(self.generators)
        drawn = [torch.rand(part, count, generator=generator) for generator in self.generators]
        order = torch.cat(drawn).to(tokens.device).argsort(dim=1)
        kept = order[:, : max(1, round(self.share * count))]
        patches = patches.gather(1, kept[:, :, None].expand(-1, -1, width))
        return torch.cat([prefix, patches], dim=1)
