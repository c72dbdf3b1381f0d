"""Residuals in few bits: what memory holds is what the disk gives back, to the bit."""

import numpy as np
import pytest

from fleetfl.codecs import CodecError
from vehicle_agent.residual import STEPS_A_RMS, coarse, packed, unpacked

pytestmark = pytest.mark.unit


def normals(size, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=size)).astype(np.float32)


VECTORS = {
    "normal": normals(5_000),
    "tiny": normals(100, 1e-37),
    "subnormal": np.float32([1e-40, 2e-40, 0]),
    "huge": np.float32([3e38, -3e38, 1]),
    "far apart": np.float32([1e38, 1e-38]),
    "zeros": np.zeros(7, np.float32),
    "empty": np.zeros(0, np.float32),
    "not finite": np.float32([np.inf, -np.inf, np.nan, 1]),
    "one of many": np.eye(1, 5_000, 3, dtype=np.float32)[0],
    "tenths": np.full(3, 0.1, np.float32),
}


@pytest.mark.parametrize("name", VECTORS)
def test_whatever_it_is_comes_back_to_the_bit_and_so_does_what_is_coarse(name):
    vector = VECTORS[name]
    for kept in (vector, coarse(vector), coarse(coarse(vector))):
        np.testing.assert_array_equal(unpacked(packed(kept)), kept)


def test_a_coarse_one_costs_half_a_byte_a_value_and_is_near():
    """Steps are a half to a quarter of the root mean square: off by at most one, whose square / 6 on average
    is at most 1/24 of the energy.
    """
    vector = normals(40_000)
    kept = coarse(vector)
    assert len(packed(kept)) < 0.56 * vector.size
    assert np.abs(kept - vector).max() < 1.01 / STEPS_A_RMS
    assert np.square(kept - vector).mean() < np.square(vector).mean() / 23
    assert coarse(vector).tobytes() == kept.tobytes()


def test_in_the_mean_it_is_the_vector_itself():
    """500 draws, each off by half a step of 0.5 at most: 0.011 in the mean, 4 times that allowed. What is
    added to have others is a 1,000th of it.
    """
    vector = normals(30)
    mean = np.mean([coarse(vector + normals(30, 0.001, n + 1)) for n in range(500)], axis=0)
    np.testing.assert_allclose(mean, vector, atol=0.045)


@pytest.mark.parametrize(
    "content", [b"", b"\0abc", b"\1", b"\1\0\0\1abcd", b"\2abc", b"\1\0\0", b"\1\0\0\7abc"]
)
def test_what_is_no_residual_is_one_error(content):
    with pytest.raises(CodecError):
        unpacked(content)


def test_a_small_one_that_would_unpack_to_gigabytes_is_refused():
    """Two numbers of steps a byte: 1,000 values where 10 are expected."""
    with pytest.raises(CodecError):
        unpacked(packed(np.zeros(1_000, np.float32)), max_values=10)
