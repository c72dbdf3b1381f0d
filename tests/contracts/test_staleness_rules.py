"""What every staleness rule promises. A new file in fleetfl/staleness is tested without an edit."""

import importlib

import pytest

from fleetfl.plugins import available

pytestmark = pytest.mark.contracts


@pytest.mark.parametrize("kind", available("fleetfl.staleness"))
def test_fresh_counts_in_full_and_late_never_more(kind):
    rule = importlib.import_module(f"fleetfl.staleness.{kind}").Config()
    weights = [rule.weight(s) for s in range(200)]
    assert weights[0] == 1.0
    assert weights == sorted(weights, reverse=True)
    assert min(weights) > 0
