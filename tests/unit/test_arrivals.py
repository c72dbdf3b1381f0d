"""Arrivals: the seed decides them, and the fast come more often."""

from collections import Counter

import numpy as np
import pytest

from sim.bench.arrivals import arrivals

pytestmark = pytest.mark.unit


def test_same_seed_same_arrivals():
    first = list(arrivals(7, 200, sigma=0.5, seed=3))
    assert first == list(arrivals(7, 200, sigma=0.5, seed=3))
    assert first != list(arrivals(7, 200, sigma=0.5, seed=4))
    assert first[:50] == list(arrivals(7, 50, sigma=0.5, seed=3))


def test_equal_vehicles_come_in_turn():
    """Without spread or jitter all are done at the same moments, so each round holds each vehicle once."""
    order = list(arrivals(5, 20, sigma=0.0, jitter=0.0, seed=0))
    assert all(sorted(order[i : i + 5]) == list(range(5)) for i in range(0, 20, 5))


def test_fast_vehicles_come_more_often():
    """With no jitter a vehicle's share follows from its pace: exp(normal) times an update."""
    pace = np.exp(np.random.default_rng(1).normal(0.0, 1.0, 6))
    counts = Counter(arrivals(6, 600, sigma=1.0, jitter=0.0, seed=1))
    expected = 600 * (1 / pace) / (1 / pace).sum()
    assert all(abs(counts[v] - expected[v]) <= 2 for v in range(6))
