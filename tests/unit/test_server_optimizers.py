"""Server optimizers against numbers worked out by hand."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from fleetfl.aggregators import Step
from fleetfl.server_optimizers import AnyServerOptimizer
from fleetfl.server_optimizers.adam import Config as Adam
from fleetfl.server_optimizers.fadas import Config as FADAS
from fleetfl.server_optimizers.momentum_approximation import Config as Approximation
from fleetfl.server_optimizers.sgd import Config as SGD
from fleetfl.server_optimizers.yogi import Config as Yogi

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


@pytest.mark.parametrize(("config", "square"), [(Adam, 1 / 2 + 16 / 2), (Yogi, 1 + 16 / 2)])
def test_adaptive_steps_by_hand(config, square):
    """A change of 4, b1 = b2 = 1/2, t = 1: m = 2. Adam: v = 1/2 + 8. Yogi: 1 is below 16, so v = 1 + 8."""
    optimizer = config(learning_rate=1, beta1=0.5, beta2=0.5, adaptivity=1).build(1)
    moved = optimizer.apply(np.float32([0]), step(4))
    np.testing.assert_allclose(moved, [2 / (square**0.5 + 1)], rtol=1e-7)


def test_fadas_is_slower_for_old_updates_by_hand():
    """One step of size 1 at rate 1/2: fresh, or 1 old: 1/2. 4 old: 1/4 by the paper, 1/8 scaled."""
    far = {}
    for delay in ("paper", "scaled"):
        for oldest in (0, 1, 4):
            optimizer = FADAS(learning_rate=0.5, beta1=0, beta2=0, delay=delay).build(1)
            far[delay, oldest] = optimizer.apply(np.float32([0]), step(3, staleness=(0, oldest)))
    assert far["paper", 0] == far["paper", 1] == far["scaled", 1] == np.float32(0.5)
    assert (far["paper", 4], far["scaled", 4]) == (np.float32(0.25), np.float32(0.125))


def test_momentum_approximation_by_hand():
    """beta 1/2: 4 fresh, then 8 one late, both of version 0: 4 + (4 + 8) / 4 = 7."""
    optimizer = Approximation(momentum=0.5).build(1)
    first = optimizer.apply(np.float32([0]), step(4))
    np.testing.assert_array_equal(first, np.float32([4]))
    np.testing.assert_allclose(optimizer.apply(first, step(8, staleness=(1,))), [7], rtol=1e-7)


def test_momentum_approximation_of_fresh_updates_is_momentum():
    ours, theirs = Approximation(momentum=0.5).build(1), SGD(momentum=0.5).build(1)
    x = y = np.float32([0])
    for value in (4, -2, 8, 1):
        x, y = ours.apply(x, step(value)), theirs.apply(y, step(value))
    np.testing.assert_allclose(x, y, rtol=1e-6)


def test_settings_without_a_kind_are_sgd():
    """As files had them before there were other kinds."""
    read = TypeAdapter(AnyServerOptimizer).validate_python
    assert read({"learning_rate": 0.5, "momentum": 0.9}) == SGD(learning_rate=0.5, momentum=0.9)
    assert read({}) == SGD()
    with pytest.raises(ValueError, match="no kind 'lion'; there are"):
        read({"kind": "lion"})
