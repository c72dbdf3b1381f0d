"""A linear layer with a low-rank addition."""

import copy

import torch
from torch import nn

from fleetfl.models.stacked import linear


class LowRankLinear(nn.Module):
    """y = frozen(x) + scale * B (A x); A: float32 [rank, in], B: float32 [out, rank]; both may be stacked."""

    def __init__(
        self, frozen: nn.Linear, rank: int, scale: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.frozen, self.scale = frozen, scale
        self.lora_a = nn.Parameter(torch.empty(rank, frozen.in_features))
        self.lora_b = nn.Parameter(torch.zeros(frozen.out_features, rank))
        # The bound of nn.Linear's own start, as in LoRA's reference code.
        bound = frozen.in_features**-0.5
        nn.init.uniform_(self.lora_a, -bound, bound, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = linear(linear(x, self.lora_a), self.lora_b)
        return torch.add(self.frozen(x), low, alpha=self.scale)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """One plain layer that does the same, up to rounding."""
        plain = copy.deepcopy(self.frozen)
        plain.weight += self.scale * self.lora_b @ self.lora_a
        return plain
