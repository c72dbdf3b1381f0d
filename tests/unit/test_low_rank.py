"""The low-rank layer against the formula, one vehicle's and several stacked, and its own gradients."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fleetfl.models.low_rank import LowRankLinear

pytestmark = pytest.mark.unit

SCALE = 1.7


def made(rank: int, *, has_bias: bool, dtype: torch.dtype = torch.float64) -> LowRankLinear:
    frozen = nn.Linear(14, 9, bias=has_bias).requires_grad_(False)
    return LowRankLinear(frozen, rank, SCALE, torch.Generator().manual_seed(rank)).to(dtype)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype).requires_grad_()


def formula(
    layer: LowRankLinear, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    return layer.frozen(x) + SCALE * (x @ a.T @ b.T)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rank", [1, 8, 12, 13])
def test_values_and_gradients_are_the_formulas(rank, has_bias):
    layer, x = made(rank, has_bias=has_bias), drawn(6, 5, 14)
    a, b = drawn(rank, 14), drawn(9, rank)
    found = functional_call(layer, {"lora_a": a, "lora_b": b}, (x,))
    expected = formula(layer, x, a, b)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), (x, a, b)),
        torch.autograd.grad(expected.square().sum(), (x, a, b)),
    )


def test_each_of_a_stack_sees_its_own_rows():
    layer, x = made(4, has_bias=True), drawn(6, 5, 14)
    a, b = drawn(3, 4, 14), drawn(3, 9, 4)
    found = functional_call(layer, {"lora_a": a, "lora_b": b}, (x,))
    expected = torch.cat(
        [formula(layer, x[2 * v : 2 * v + 2], each, b[v]) for v, each in enumerate(a)]
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), (x, a, b)),
        torch.autograd.grad(expected.square().sum(), (x, a, b)),
    )


def test_the_first_layer_of_all_needs_no_gradient_of_what_goes_in():
    layer = made(4, has_bias=True)
    nn.init.ones_(layer.lora_b)
    layer(drawn(6, 14).detach()).square().sum().backward()
    assert layer.lora_a.grad is not None
    assert layer.lora_a.grad.abs().max() > 0


def test_under_autocast_it_multiplies_in_bfloat16_and_trains_in_float32():
    layer, x = made(4, has_bias=True, dtype=torch.float32), drawn(6, 14, dtype=torch.float32)
    nn.init.ones_(layer.lora_b)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    expected = formula(layer, x, layer.lora_a, layer.lora_b)
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.02)
    found.float().square().sum().backward()
    assert layer.lora_a.grad is not None
    assert layer.lora_a.grad.dtype == torch.float32
