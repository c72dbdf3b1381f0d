"""The closed-form head: exact in any order and to take a vehicle out of; and it tells classes apart."""

import numpy as np
import pytest

from fleetfl.closed_form import (
    ClosedFormHead,
    Config,
    SufficientStatistics,
    discriminant,
    features_of,
    unpacked,
)
from fleetfl.codecs import CodecError
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit

LAYOUT = Layout((("blocks.lora_a", (2, 3)), ("head.bias", (3,)), ("head.weight", (3, 6))))
VECTOR = np.arange(LAYOUT.size, dtype=np.float32)
FEATURES = features_of(VECTOR, LAYOUT)


def frames(seed, count=40):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return rng.normal(0, 1, (count, 6)) + 2 * np.eye(3, 6)[labels], labels


def body(seed, count=40):
    return SufficientStatistics.of(*frames(seed, count), 3).packed(FEATURES)


def filled(order):
    head = ClosedFormHead(Config(vehicles=4), LAYOUT, VECTOR)
    for seed in order:
        head.put(f"v{seed}", body(seed), 40)
    return head


def test_sums_by_hand():
    """Frames (2) and (3) of classes 0 and 1, with their constant: f f' = [4 2; 2 1] + [9 3; 3 1]."""
    sums = SufficientStatistics.of(np.array([[2.0], [3.0]]), np.array([0, 1]), 2)
    np.testing.assert_array_equal(sums.gram / 16, [13, 5, 2])
    np.testing.assert_array_equal(sums.cross / 16, [[2, 3], [1, 1]])
    assert sums.num_examples == 2


def test_discriminant_by_hand():
    """One feature; class 0 at -2 and 0, class 1 at 2 and 4: means -1 and 3, variance within 1.

    With shrinkage 1 that is 2: weights -1/2 and 3/2, scores -1/4 and -9/4.
    Less their means, 1/2 and -5/4: -1 and 1; 1 and -1.
    """
    sums = SufficientStatistics.of(
        np.array([[-2.0], [0.0], [2.0], [4.0]]), np.array([0, 0, 1, 1]), 2
    )
    weight, bias = discriminant(sums, shrinkage=1.0)
    np.testing.assert_allclose(weight, [[-1.0], [1.0]])
    np.testing.assert_allclose(bias, [1.0, -1.0])


def test_any_order_gives_the_same_bits():
    solved = [filled(order).solved(VECTOR) for order in ([0, 1, 2, 3], [3, 1, 0, 2])]
    np.testing.assert_array_equal(*solved)


def test_a_vehicle_taken_out_was_never_there_to_the_bit():
    head = filled([0, 1, 2, 3])
    assert head.forget("v2")
    assert not head.forget("v2")
    np.testing.assert_array_equal(head.solved(VECTOR), filled([0, 1, 3]).solved(VECTOR))


def test_a_vehicle_that_sends_again_counts_once():
    head = filled([0, 1, 2])
    head.put("v1", body(1), 40)
    np.testing.assert_array_equal(head.solved(VECTOR), filled([0, 1, 2]).solved(VECTOR))


def test_the_sum_of_the_parts_is_the_sum_of_all_but_for_the_fixed_point():
    features, labels = zip(*(frames(seed) for seed in range(4)), strict=True)
    whole = SufficientStatistics.of(np.concatenate(features), np.concatenate(labels), 3)
    np.testing.assert_allclose(filled(range(4)).total.gram, whole.gram, atol=4)
    np.testing.assert_allclose(filled(range(4)).total.cross, whole.cross, atol=4)


def test_only_the_head_changes_and_it_knows_the_classes():
    solved = LAYOUT.unflatten(filled(range(4)).solved(VECTOR))
    np.testing.assert_array_equal(solved["blocks.lora_a"], VECTOR[:6].reshape(2, 3))
    features, labels = frames(9, 300)
    guesses = (features @ solved["head.weight"].T + solved["head.bias"]).argmax(axis=1)
    assert (guesses == labels).mean() > 0.75


def test_a_class_that_nobody_meets_gets_zeros():
    features, labels = frames(0)
    weight, bias = discriminant(SufficientStatistics.of(features, labels % 2, 3), shrinkage=0.1)
    assert not weight[2].any()
    assert bias[2] == 0
    assert weight[:2].any(axis=1).all()


def test_state_goes_on_where_it_was():
    head, other = filled([0, 1]), ClosedFormHead(Config(vehicles=4), LAYOUT, 0 * VECTOR)
    other.restore(head.snapshot())
    for each in (head, other):
        each.put("v2", body(2), 40)
        assert each.forget("v0")
    np.testing.assert_array_equal(head.solved(VECTOR), other.solved(VECTOR))


def test_other_features_other_counts_and_noise_are_refused_and_change_nothing():
    head = filled([0])
    before = head.solved(VECTOR)
    other = features_of(VECTOR + 1, LAYOUT)
    assert other != FEATURES
    assert (
        features_of(VECTOR + np.r_[np.zeros(6), np.ones(21)].astype(np.float32), LAYOUT) == FEATURES
    )
    noise = np.random.default_rng(0).bytes(200)
    huge = SufficientStatistics.of(*frames(1), 3)
    huge.gram[0] = 2**50
    bad = (
        (SufficientStatistics.of(*frames(1), 3).packed(other), 40, "features"),
        (body(1), 41, "41 examples"),
        (body(1)[:-4], 40, "statistics"),
        (FEATURES + noise, 40, "statistics"),
        (b"", 40, "features"),
        (huge.packed(FEATURES), 40, "beyond"),
    )
    for unfit, num_examples, why in bad:
        with pytest.raises(CodecError, match=why):
            head.put("v0", unfit, num_examples)
    np.testing.assert_array_equal(head.solved(VECTOR), before)


def test_packing_loses_nothing():
    sums = SufficientStatistics.of(*frames(5), 3)
    again = unpacked(sums.packed(FEATURES), LAYOUT, features=FEATURES, num_examples=40)
    np.testing.assert_array_equal(again.gram, sums.gram)
    np.testing.assert_array_equal(again.cross, sums.cross)
