"""Linear layers of many vehicles in one call: weights are stacked, each sees its own part of the rows."""

import torch
from torch import nn
from torch.nn import functional

WIDE = 12
"""Number of columns from which on MKL multiplies alike on all processors, where it is told to
(sim/fleet/instructions.py)."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Applies a linear layer, like functional.linear, whose weights may be stacked for several vehicles.

    weight: [out, in]; or [V, out, in] with bias [V, out], and then the rows of x, [V * B, ..., in], are
    those of vehicle 0, of vehicle 1, ...: B each.

    Narrow weights are padded with zeros, so that more processors give the same bits.
    """
    num_out, num_in = weight.shape[-2:]
    more_out, more_in = max(0, WIDE - num_out), max(0, WIDE - num_in)
    if more_out or more_in:
        x, weight = (
            functional.pad(x, (0, more_in)),
            functional.pad(weight, (0, more_in, 0, more_out)),
        )
        bias = None if bias is None else functional.pad(bias, (0, more_out))
        return _linear(x, weight, bias)[..., :num_out]
    return _linear(x, weight, bias)


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if weight.dim() == 2:
        return functional.linear(x, weight, bias)
    rows = x.reshape(len(weight), -1, x.shape[-1])
    out = rows @ weight.mT if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return out.view(*x.shape[:-1], weight.shape[1])


class Linear(nn.Linear):
    """A linear layer that may be called with stacked weights (torch.func.functional_call)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return linear(input, self.weight, self.bias)
