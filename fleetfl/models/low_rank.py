"""A linear layer with a low-rank addition."""

import copy
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fleetfl.models.stacked import WIDE


class LowRankLinear(nn.Module):
    """y = frozen(x) + scale * B (A x); A: float32 [rank, in], B: float32 [out, rank]; both may be stacked.

    Stacked they are [V, rank, in] and [V, out, rank], and the rows of x, [V * B, ..., in], are those of
    vehicle 0, of vehicle 1, ...: B each.
    """

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
        low_a, low_b = self.lora_a, self.lora_b
        if low_a.dim() == 2:
            low_a, low_b = low_a[None], low_b[None]
        # As functional.linear would by itself.
        kind = x.device.type
        is_cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if is_cast else x.dtype
        product: Any = _Product.apply(x.to(dtype), low_a.to(dtype), low_b.to(dtype), self)
        return product

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """A plain linear layer with the same results, up to rounding."""
        plain = copy.deepcopy(self.frozen)
        plain.weight += self.scale * self.lora_b @ self.lora_a
        return plain


class _Product(torch.autograd.Function):
    """frozen(x) + scale * B (A x), added up in place, and its gradients: a fifth less time than op by op.

    The frozen weights get no gradient.

    A narrow A and B are padded with zeros: more processors agree then (fleetfl/models/stacked.py).
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, low_a: torch.Tensor, low_b: torch.Tensor, layer: LowRankLinear
    ) -> torch.Tensor:
        ctx.scale, ctx.shape, ctx.rank = layer.scale, x.shape, low_a.shape[1]
        weight, bias = layer.frozen.weight.to(x.dtype), layer.frozen.bias
        more = max(0, WIDE - ctx.rank)
        low_a, low_b = functional.pad(low_a, (0, 0, 0, more)), functional.pad(low_b, (0, more))
        rows = x.reshape(len(low_a), -1, x.shape[-1])
        low = rows @ low_a.mT
        out = functional.linear(rows, weight, None if bias is None else bias.to(x.dtype))
        out.baddbmm_(low, low_b.mT, alpha=layer.scale)
        ctx.save_for_backward(rows, low, weight, low_a, low_b)
        return out.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        rows, low, weight, low_a, low_b = ctx.saved_tensors
        grad = grad.reshape(len(low_a), -1, len(weight))
        grad_low = (grad @ low_b).mul_(ctx.scale)
        grad_b = (grad.mT @ low).mul_(ctx.scale)
        grad_a = grad_low.mT @ rows
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).baddbmm_(grad_low, low_a).view(ctx.shape)
        return grad_x, grad_a[:, : ctx.rank], grad_b[..., : ctx.rank], None
