"""FedBuff against numbers worked out by hand and an independent reference."""

import weakref

import numpy as np
import pytest

from fleetfl.aggregators._weighted_sum import BLOCK, weighted_sum
from fleetfl.aggregators.fedbuff import Config
from fleetfl.server_optimizers.sgd import Config as OptimizerConfig
from fleetfl.staleness.constant import Config as Constant
from fleetfl.staleness.hinge import Config as Hinge
from fleetfl.staleness.polynomial import Config as Polynomial

pytestmark = pytest.mark.unit


def step_of(config, *updates):
    """The step after (value, staleness) updates of one value, 4 examples each."""
    buffer = config.build(size=1)
    steps = [
        buffer.add(np.float32([v]), vehicle="v", num_examples=4, staleness=s) for v, s in updates
    ]
    assert all(step is None for step in steps[:-1])
    return steps[-1].change


def test_two_updates_by_hand():
    """Goal 2, exponent 1: fresh 6 counts 6, one version late 4 counts 4/2; (6 + 2) / 2 = 4."""
    step = step_of(Config(goal=2, staleness=Polynomial(exponent=1)), (6, 0), (4, 1))
    np.testing.assert_array_equal(step, np.float32([4]))


def test_normalizing_by_weights_by_hand():
    """The same two: (6 + 2) / (1 + 1/2) = 16/3."""
    config = Config(goal=2, staleness=Polynomial(exponent=1), normalize="weights")
    np.testing.assert_allclose(step_of(config, (6, 0), (4, 1)), [16 / 3], rtol=1e-7)


def test_constant_rule_by_hand():
    """Staleness is ignored: (6 + 4) / 2 = 5."""
    step = step_of(Config(goal=2, staleness=Constant()), (6, 0), (4, 9))
    np.testing.assert_array_equal(step, np.float32([5]))


def test_hinge_rule_by_hand():
    """Slope 1, limit 2: staleness 2 counts in full, 5 counts 1/(1 + 3): (6 + 8/4) / 2 = 4."""
    config = Config(goal=2, staleness=Hinge(slope=1, limit=2))
    np.testing.assert_array_equal(step_of(config, (6, 2), (8, 5)), np.float32([4]))


def test_examples_weigh_by_hand():
    """Both have 4 examples, weights 4 and 4/2: (4 * 6 + 2 * 3) / 6 = 5."""
    config = Config(
        goal=2, staleness=Polynomial(exponent=1), normalize="weights", weigh_examples=True
    )
    np.testing.assert_array_equal(step_of(config, (6, 0), (3, 1)), np.float32([5]))


def test_polynomial_rule_by_hand():
    """(1 + 3)^-1/2 = 1/2; a fresh update counts 1."""
    assert Polynomial(exponent=0.5).weight(3) == 0.5
    assert Polynomial(exponent=0.5).weight(0) == 1.0


def reference(deltas, staleness, goal, exponent, rate, momentum):
    """Algorithm 1 of arXiv:2106.06639 with server momentum, in float64 and plain loops."""
    x, velocity, buffer = np.zeros(deltas.shape[1]), np.zeros(deltas.shape[1]), []
    for delta, s in zip(deltas.astype(float), staleness, strict=True):
        buffer.append(delta / (1 + s) ** exponent)
        if len(buffer) == goal:
            velocity = momentum * velocity + sum(buffer) / goal
            x, buffer = x + rate * velocity, []
    return x


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_matches_an_independent_reference(exponent, momentum):
    rng = np.random.default_rng(5)
    deltas = rng.normal(size=(47, 33)).astype(np.float32) * 0.01
    staleness = rng.integers(0, 12, 47)
    buffer = Config(goal=5, staleness=Polynomial(exponent=exponent)).build(33)
    optimizer = OptimizerConfig(learning_rate=0.7, momentum=momentum).build(33)
    x = np.zeros(33, np.float32)
    for delta, s in zip(deltas, staleness, strict=True):
        step = buffer.add(delta, vehicle="v", num_examples=1, staleness=int(s))
        x = x if step is None else optimizer.apply(x, step)
    expected = reference(deltas, staleness, 5, exponent, 0.7, momentum)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(x, expected, atol=1e-7)


def bits(vector):
    """Told apart from equal numbers: 0.0 and -0.0."""
    return vector.view(np.uint32)


@pytest.mark.parametrize("num_threads", [1, 2, 3, None])
def test_sum_has_the_bits_of_one_product_and_one_sum_an_update(num_threads):
    """Three blocks, the last one shorter; numpy's whole-array chain is the expected value."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(4, 2 * BLOCK + 5)).astype(np.float32)
    weights = [0.3, 1.0, 2**-0.5, 1 / 3]
    expected = np.float32(0.3) * vectors[0]
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        expected = expected + np.float32(weight) * vector
    expected = expected / np.float32(7)
    total = weighted_sum(list(vectors), weights, divisor=7, num_threads=num_threads)
    np.testing.assert_array_equal(bits(total), bits(expected))


def run(config, deltas, *, snapshot_every=None):
    """The bits of all steps of one stream, staleness 0, 1, 2, 0, ..."""
    buffer, steps = config.build(deltas.shape[1]), []
    for i, delta in enumerate(deltas):
        step = buffer.add(delta, vehicle="v", num_examples=i + 1, staleness=i % 3)
        steps += [] if step is None else [bits(step.change)]
        if snapshot_every and i % snapshot_every == 0:
            state, buffer = buffer.snapshot(), config.build(deltas.shape[1])
            buffer.restore(state)
    return np.stack(steps)


@pytest.mark.parametrize("max_held_bytes", [0, 200, 320])
@pytest.mark.parametrize("normalize", ["count", "weights"])
def test_what_is_held_does_not_change_the_bits(max_held_bytes, normalize):
    """Updates of 33 values, 132 bytes: summed one by one, in twos, in threes, or all at the end."""
    deltas = np.random.default_rng(6).normal(size=(40, 33)).astype(np.float32)
    small = Config(goal=8, normalize=normalize, max_held_bytes=max_held_bytes)
    large = Config(goal=8, normalize=normalize)
    np.testing.assert_array_equal(run(small, deltas), run(large, deltas))


@pytest.mark.parametrize("snapshot_every", [1, 3, 8])
def test_a_restart_does_not_change_the_bits(snapshot_every):
    """Some values are -0.0, which a sum begun at 0.0 would lose."""
    deltas = np.random.default_rng(8).normal(size=(40, 33)).astype(np.float32)
    deltas[:, :5] = -0.0
    config = Config(goal=8)
    np.testing.assert_array_equal(
        run(config, deltas, snapshot_every=snapshot_every), run(config, deltas)
    )


def test_held_updates_are_let_go_at_the_limit():
    """20 bytes each, 50 may be held: the third makes 60, so all three are summed."""
    buffer = Config(goal=9, max_held_bytes=50).build(5)
    alive = []
    for _ in range(4):
        delta = np.ones(5, np.float32)
        alive.append(weakref.ref(delta))
        buffer.add(delta, vehicle="v", num_examples=1, staleness=0)
        del delta
    assert [ref() is not None for ref in alive] == [False, False, False, True]


def test_overflow_is_left_to_whoever_applies_the_step():
    """3e38 + 3e38 is more than float32 holds."""
    step = step_of(Config(goal=2), (3e38, 0), (3e38, 0))
    np.testing.assert_array_equal(step, np.float32([np.inf]))


def test_a_goal_lowered_by_a_restart_is_met_by_the_next_update():
    """Three of 9 buffered, then the goal is 2: four updates of 6, mean 6."""
    before, after = Config(goal=9).build(1), Config(goal=2).build(1)
    for _ in range(3):
        before.add(np.float32([6]), vehicle="v", num_examples=1, staleness=0)
    after.restore(before.snapshot())
    step = after.add(np.float32([6]), vehicle="v", num_examples=1, staleness=0)
    assert step is not None
    np.testing.assert_array_equal(step.change, np.float32([6]))
