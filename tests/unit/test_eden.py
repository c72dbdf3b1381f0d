"""EDEN against the errors of its paper, an explicit Hadamard matrix and the definition of Lloyd-Max."""

import math
from functools import reduce

import numpy as np
import pytest

from fleetfl.codecs import CodecError
from fleetfl.codecs._hadamard import signs, transform
from fleetfl.codecs.eden import CODEBOOKS, ERRORS, Config, block_sizes
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
SIZE = 300_000


def heavy_tailed(size: int) -> np.ndarray:
    """Float32 [size] whose halves differ a hundredfold."""
    vector = np.random.default_rng(3).standard_t(3, size)
    vector[: size // 2] *= 100
    return vector.astype(np.float32)


@pytest.mark.parametrize("scale", ["unbiased", "least_error"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_error_is_the_papers_whatever_the_vector(bits, scale):
    codec, vector = Config(bits=bits, scale=scale).build(Layout.flat(SIZE)), heavy_tailed(SIZE)
    off = codec.decode(codec.encode(vector)).astype(np.float64) - vector
    error = np.square(off).sum() / np.square(vector, dtype=np.float64).sum()
    assert error == pytest.approx(ERRORS[scale][bits - 1], rel=0.02)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_codes_are_the_means_of_their_cells(bits):
    """Lloyd-Max: between a and b, N(0, 1) has the mean (pdf(a) - pdf(b)) / (cdf(b) - cdf(a))."""
    codes = CODEBOOKS[bits - 1].astype(np.float64)
    edges = [-40.0, *((codes[1:] + codes[:-1]) / 2), 40.0]
    pdf = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in edges]
    cdf = [math.erfc(-x / math.sqrt(2)) / 2 for x in edges]
    np.testing.assert_allclose(codes, -np.diff(pdf) / np.diff(cdf), atol=2e-7)
    error = 1 - (codes**2 * np.diff(cdf)).sum()
    assert error == pytest.approx(ERRORS["least_error"][bits - 1], rel=2e-3)
    assert error / (1 - error) == pytest.approx(ERRORS["unbiased"][bits - 1], rel=2e-3)


def test_one_bit_of_one_value_by_hand():
    """A block of one: the code is c * sign, the factor |x| / c, their product x itself."""
    codec = Config(bits=1).build(Layout.flat(1))
    assert codec.decode(codec.encode(np.float32([-3]))) == pytest.approx([-3.0])


def test_blocks_of_very_different_size_keep_their_relative_error():
    """65,536 values near 1e20 and 16,384 near 1, at 4 bits: each block is off by .0096 of its square."""
    rng = np.random.default_rng(5)
    vector = np.concatenate([rng.normal(size=65_536) * 1e20, rng.normal(size=16_384)])
    codec = Config(bits=4).build(Layout.flat(vector.size))
    back = codec.decode(codec.encode(vector.astype(np.float32))).astype(np.float64)
    for part in (slice(0, 65_536), slice(65_536, None)):
        error = np.square(back[part] - vector[part]).sum() / np.square(vector[part]).sum()
        assert error == pytest.approx(ERRORS["unbiased"][3], rel=0.05)


def test_blocks_that_do_not_count_become_zeros():
    vector = np.full(65_536 + 64, 1e-38, np.float32)
    vector[:65_536] = 1e20
    codec = Config().build(Layout.flat(vector.size))
    assert not codec.decode(codec.encode(vector))[65_536:].any()


def test_blocks_are_powers_of_two_with_little_padding():
    for size in [*range(5000), 38_794, 10**6, 2**17 - 1]:
        blocks = block_sizes(size)
        assert all(block & (block - 1) == 0 for block in blocks)
        assert 0 <= sum(blocks) - size <= 31
    assert block_sizes(38_794) == [32_768, 4096, 1024, 512, 256, 128, 16]


def test_body_holds_the_bits_and_little_else():
    """38,794 values: 1 + 4 bytes, 7 factors, 38,800 codes of 3 bits."""
    body = Config(bits=3).build(Layout.flat(38_794)).encode(np.ones(38_794, np.float32))
    assert len(body) == 5 + 7 * 4 + 38_800 * 3 // 8


def test_another_vector_gets_other_signs_and_a_seed_fixes_them():
    layout, ones = Layout.flat(64), np.ones(64, np.float32)
    drawn = [Config().build(layout).encode(scale * ones)[1:5] for scale in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert Config(seed=7).build(layout).encode(ones)[1:5] == b"\7\0\0\0"


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 2), (8, 4), (16, 16), (64, 32)])
def test_transform_is_the_hadamard_matrix_on_both_sides(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    left, right = (hadamard(size) for size in shape)
    turned = transform(values.copy())
    np.testing.assert_allclose(turned, (left @ values @ right).T, atol=1e-3)
    np.testing.assert_allclose(transform(turned), values.size * values, atol=1e-2)


def hadamard(size: int) -> np.ndarray:
    """Sylvester's, float64 [size, size]."""
    twos = [np.array([[1.0, 1.0], [1.0, -1.0]])] * (size.bit_length() - 1)
    return reduce(np.kron, twos, np.ones((1, 1)))


def test_signs_are_the_bits_of_splitmix64():
    """From seed 0 its first output is 0xE220A8397B1DCDAF; a bit that is set is a minus."""
    expected = [1 - 2 * (0xE220A8397B1DCDAF >> bit & 1) for bit in range(64)]
    np.testing.assert_array_equal(signs(0, 64), expected)
    assert abs(signs(2**32 - 1, 10**6).mean()) < 0.005


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_values_too_large_for_the_sums_are_refused(bits):
    for size in (1, 2, 100, 70_000):
        codec, ones = Config(bits=bits).build(Layout.flat(size)), np.ones(size, np.float32)
        assert np.isfinite(codec.decode(codec.encode(np.float32(9e32) * ones))).all()
    with pytest.raises(CodecError, match=r"magnitude 3.*e\+38, expected at most 9e32"):
        Config().build(Layout.flat(1)).encode(np.float32([3e38]))
