"""Golomb-Rice codes: bits by hand, near the entropy, and nothing but gaps comes back."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetfl.codecs import CodecError
from fleetfl.codecs._golomb import decode, encode, width

pytestmark = pytest.mark.unit


def test_bits_by_hand():
    """Width 1: 0 is `1` and lower bit 0; 5 is two zeros, `1` and lower bit 1. 1 001, 01: 0b101001."""
    widths = np.uint8([1, 1])
    assert encode(np.array([0, 5]), widths) == bytes([0b101001])
    np.testing.assert_array_equal(decode(bytes([0b101001]), [2], [1], 5), [0, 5])


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 11)), max_size=60))
def test_round_trip_with_any_widths(pairs):
    gaps = np.array([gap for gap, _ in pairs], np.int64)
    widths = np.array([w for _, w in pairs], np.uint8)
    back = decode(encode(gaps, widths), [1] * len(pairs), widths.tolist(), int(gaps.sum()))
    np.testing.assert_array_equal(back, gaps)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.01, 0.001])
def test_random_positions_take_little_more_than_their_entropy(share):
    size = 1_000_000
    places = np.flatnonzero(np.random.default_rng(0).random(size) < share)
    widths = np.full(places.size, width(places.size, size), np.uint8)
    bits = 8 * len(encode(np.diff(places, prepend=-1) - 1, widths)) / size
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert bits < 1.03 * entropy


@pytest.mark.parametrize("count", [1, 3, 10, 50, 99, 100])
def test_no_other_width_is_better(count):
    """100 places at random: the mean gap is (100 - count) / count, its law near a geometric one."""
    gaps = np.random.default_rng(1).geometric(count / 100, 200_000) - 1
    sizes = [len(encode(gaps, np.full(gaps.size, w, np.uint8))) for w in range(9)]
    assert sizes[width(count, 100)] <= 1.01 * min(sizes)


@given(st.binary(max_size=40), st.lists(st.integers(0, 6), max_size=30), st.integers(0, 300))
def test_noise_is_gaps_within_the_limit_or_codec_error(noise, widths, limit):
    with contextlib.suppress(CodecError):
        gaps = decode(noise, [1] * len(widths), widths, limit)
        assert gaps.size == len(widths)
        assert (gaps >= 0).all()
        assert gaps.sum() <= limit


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([0b1001]),  # the lower bits are zeros by chance: 0 and 4, but 4 > 3
        bytes([0b101001, 0]),  # a byte too many
        bytes([0b1101001]),  # a bit too many
        bytes(10_000),  # longer than any such gaps
    ],
)
def test_what_is_not_these_gaps_is_refused(data):
    with pytest.raises(CodecError):
        decode(data, [2], [1], 3)
