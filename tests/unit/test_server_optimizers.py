"""Server optimizers against numbers worked out by hand."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from fleetfl.aggregators import Step
from fleetfl.server_optimizers import AnyServerOptimizer
from fleetfl.server_optimizers.sgd import Config as SGD

pytestmark = pytest.mark.unit


def step(*values, staleness=(0,)):
    return Step(np.float32(values), staleness)


def test_momentum_by_hand():
    """Rate 0.5, momentum 0.5, steps 4, 4: v = 4, 6; x = 0 + 2 = 2, then 2 + 3 = 5."""
    optimizer = SGD(learning_rate=0.5, momentum=0.5).build(1)
    first = optimizer.apply(np.float32([0]), step(4))
    np.testing.assert_array_equal(first, np.float32([2]))
    np.testing.assert_array_equal(optimizer.apply(first, step(4)), np.float32([5]))


def test_momentum_of_a_snapshot_is_not_changed_by_later_steps():
    """Steps 4, 4 at rate 1: back at the first snapshot, the second step gives what it gave."""
    optimizer = SGD(momentum=0.5).build(1)
    x = optimizer.apply(np.float32([0]), step(4))
    state = optimizer.snapshot()
    expected = optimizer.apply(x, step(4))
    optimizer.apply(expected, step(7))
    optimizer.restore(state)
    np.testing.assert_array_equal(optimizer.apply(x, step(4)), expected)


def test_settings_without_a_kind_are_sgd():
    """As files had them before there were other kinds."""
    read = TypeAdapter(AnyServerOptimizer).validate_python
    assert read({"learning_rate": 0.5, "momentum": 0.9}) == SGD(learning_rate=0.5, momentum=0.9)
    assert read({}) == SGD()
    with pytest.raises(ValueError, match="no kind 'lion'; there are"):
        read({"kind": "lion"})
