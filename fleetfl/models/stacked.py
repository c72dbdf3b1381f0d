"""Linear layers of many vehicles in one call: weights are stacked, each sees its own part of the rows."""

import torch
from torch import nn
from torch.nn import functional


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As functional.linear, also for stacked weights.

    weight: [out, in]; or [V, out, in] with bias [V, out], and then the rows of x, [V * B, ..., in], are
    those of vehicle 0, of vehicle 1, ...: B each.
    """
    if weight.dim() == 2:
        return functional.linear(x, weight, bias)
    rows = x.reshape(len(weight), -1, x.shape[-1])
    out = rows @ weight.mT if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return out.view(*x.shape[:-1], weight.shape[1])


class Linear(nn.Linear):
    """A linear layer that may be called with stacked weights (torch.func.functional_call)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return linear(input, self.weight, self.bias)
