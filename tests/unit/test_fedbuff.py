"""FedBuff against numbers worked out by hand and an independent reference."""

import json
from pathlib import Path

import numpy as np
import pytest

from fleetfl.aggregators.fedbuff import Config
from fleetfl.server_optimizer import Config as OptimizerConfig
from fleetfl.staleness.constant import Config as Constant
from fleetfl.staleness.hinge import Config as Hinge
from fleetfl.staleness.polynomial import Config as Polynomial

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parents[1] / "golden" / "fedbuff.json"


def step_of(config, *updates):
    """The step after (value, staleness) updates of one value, 4 examples each."""
    buffer = config.build(size=1)
    steps = [buffer.add(np.float32([v]), num_examples=4, staleness=s) for v, s in updates]
    assert all(step is None for step in steps[:-1])
    return steps[-1]


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


def test_momentum_by_hand():
    """Rate 0.5, momentum 0.5, steps 4, 4: v = 4, 6; x = 0 + 2 = 2, then 2 + 3 = 5."""
    optimizer = OptimizerConfig(learning_rate=0.5, momentum=0.5).build(1)
    first = optimizer.apply(np.float32([0]), np.float32([4]))
    np.testing.assert_array_equal(first, np.float32([2]))
    np.testing.assert_array_equal(optimizer.apply(first, np.float32([4])), np.float32([5]))


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
        step = buffer.add(delta, num_examples=1, staleness=int(s))
        x = x if step is None else optimizer.apply(x, step)
    expected = reference(deltas, staleness, 5, exponent, 0.7, momentum)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(x, expected, atol=1e-7)


def test_golden_case():
    """Published as data for other implementations to try: tests/golden/fedbuff.json."""
    case = json.loads(GOLDEN.read_text())
    config = Config(goal=case["goal"], staleness=Polynomial(exponent=case["exponent"]))
    buffer = config.build(len(case["start"]))
    x = np.array(case["start"], np.float32)
    optimizer = OptimizerConfig(learning_rate=case["server_learning_rate"]).build(len(x))
    for update in case["updates"]:
        delta = np.array(update["delta"], np.float32)
        step = buffer.add(delta, num_examples=1, staleness=update["staleness"])
        x = x if step is None else optimizer.apply(x, step)
    np.testing.assert_allclose(x, case["end"], atol=1e-7)
