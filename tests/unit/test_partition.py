"""Who holds what."""

import numpy as np
import pytest

from sim.partition import dirichlet_rows, dirichlet_shares

pytestmark = pytest.mark.unit
LABELS = np.random.default_rng(0).integers(0, 10, 5000)


def test_every_row_goes_to_exactly_one_vehicle():
    parts = dirichlet_rows(LABELS, 12, 0.3, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(5000))
    assert min(map(len, parts)) >= 32


def test_same_seed_same_parts():
    first, again = (dirichlet_rows(LABELS, 8, 0.3, seed=2) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_smaller_alpha_is_more_skewed():
    largest = [dirichlet_shares(200, 10, a, seed=0).max(axis=1).mean() for a in (0.1, 0.3, 3, 100)]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 0.6
    assert largest[-1] < 0.2


def test_too_few_rows_is_an_error():
    with pytest.raises(ValueError, match="100 rows do not give 12 vehicles 32 each"):
        dirichlet_rows(LABELS[:100], 12, 0.3, seed=0)
