"""Error feedback: nothing that a codec dropped is lost, and refused updates come back."""

import numpy as np
import pytest

from fleetfl.codecs.top_signs import Config as TopSigns
from fleetfl.vectors import Layout
from vehicle_agent.error_feedback import ErrorFeedback
from vehicle_agent.residual import coarse

pytestmark = pytest.mark.unit
SIZE = 50


def exact(residual):
    return residual


def feedback(decay=1.0, keep=0.1, rounded=exact):
    codec = TopSigns(keep=keep).build(Layout.flat(SIZE))
    return ErrorFeedback(codec, SIZE, decay=decay, rounded=rounded)


def test_what_is_sent_and_what_is_left_add_up_to_what_was_learned():
    """With decay 1 the sum of the decoded bodies plus the residual is the sum of the deltas."""
    rng, wrapped = np.random.default_rng(0), feedback()
    learned, sent = np.zeros(SIZE), np.zeros(SIZE)
    for _ in range(30):
        delta = rng.normal(size=SIZE).astype(np.float32)
        packed = wrapped.pack(delta)
        wrapped.residual = packed.residual
        learned, sent = learned + delta, sent + wrapped.codec.decode(packed.body)
    np.testing.assert_allclose(sent + wrapped.residual, learned, atol=1e-4)


def test_a_small_value_that_never_wins_is_sent_in_the_end():
    """1 of 50 values is sent each time; the smallest, always 0.4 against 1, wins by its residual."""
    wrapped, delta = feedback(keep=0.02), np.zeros(SIZE, np.float32)
    delta[0], delta[1] = 1.0, 0.4
    first_sent = []
    for _ in range(4):
        packed = wrapped.pack(delta)
        wrapped.residual = packed.residual
        first_sent.append(int(np.flatnonzero(wrapped.codec.decode(packed.body))[0]))
    assert first_sent == [0, 0, 1, 0]


def test_residual_that_decays_forgets():
    """Decay 0.5: of a value that is not sent, 1 + 0.5 + 0.25 are left after three times."""
    wrapped, delta = feedback(decay=0.5, keep=0.02), np.ones(SIZE, np.float32)
    delta[0] = 100.0
    for _ in range(3):
        wrapped.residual = wrapped.pack(delta).residual
    np.testing.assert_allclose(wrapped.residual[1:], 1.75)


def test_returned_body_is_as_if_nothing_had_been_packed():
    wrapped = feedback()
    delta = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)
    packed = wrapped.pack(delta)
    wrapped.residual = packed.residual
    np.testing.assert_allclose(wrapped.returned(packed.body), delta, atol=1e-6)


def test_rounded_to_few_bits_nothing_that_was_learned_is_lost_in_the_mean():
    """Beside values of 1 one of 0.02, less than a twelfth of a step, none of them sent: 300 times 0.02 is 6,
    in steps of 0.25 or 0.5, so give or take 1.7 (root of 6 * 0.5). Rounded to the nearest it were 0.
    """
    wrapped, total = feedback(decay=0.0, keep=0.02, rounded=coarse), np.zeros(SIZE)
    delta = np.ones(SIZE, np.float32)
    delta[0], delta[7] = 100.0, 0.02
    for _ in range(300):
        delta[1:7] += 0.001  # draws are by the content
        total += wrapped.pack(delta).residual
    np.testing.assert_allclose(total[[8, 20, 49]], 300.0, rtol=0.1)
    assert 1.0 < total[7] < 12.0
