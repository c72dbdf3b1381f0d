"""Linear layers with a weight for all rows, or one for each vehicle's."""

import pytest
import torch

from fleetfl.models.stacked import linear

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("num_in", "num_out"), [(5, 3), (20, 3), (5, 20), (20, 20)])
def test_narrow_or_wide_stacked_or_not_it_is_the_same_product(num_in, num_out, has_bias):
    """Two vehicles with three rows each, and the gradients of all that goes in."""
    made = torch.Generator().manual_seed(num_in + num_out)
    x = torch.randn(6, 4, num_in, generator=made, requires_grad=True)
    weight = torch.randn(2, num_out, num_in, generator=made, requires_grad=True)
    bias = torch.randn(2, num_out, generator=made, requires_grad=True) if has_bias else None
    inputs = [x, weight] if bias is None else [x, weight, bias]
    each = [x[3 * v : 3 * v + 3] @ weight[v].T + (0 if bias is None else bias[v]) for v in range(2)]
    alone = [
        linear(x[3 * v : 3 * v + 3], weight[v], None if bias is None else bias[v]) for v in range(2)
    ]
    expected = torch.cat(each)
    for found in (linear(x, weight, bias), torch.cat(alone)):
        torch.testing.assert_close(found, expected)
        for mine, theirs in zip(
            torch.autograd.grad(found.square().sum(), inputs),
            torch.autograd.grad(expected.square().sum(), inputs, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs)
