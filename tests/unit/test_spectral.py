"""The spectral codec: what low rank is worth, and budgets kept."""

import numpy as np
import pytest

from fleetfl.codecs import CodecError
from fleetfl.codecs.spectral import Config
from fleetfl.codecs.top_signs import Config as TopSigns
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("a", (8, 192)), ("b", (576, 8)), ("bias", (10,)), ("head", (10, 192))))


def low_rank(seed, noise=0.3):
    """float32 [P]: each matrix of rank 1 and some noise."""
    rng = np.random.default_rng(seed)
    parts = []
    for _, shape in LAYOUT.shapes:
        matrix = rng.normal(size=shape)
        if len(shape) == 2:
            matrix = np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1])) + noise * matrix
        parts.append(matrix.ravel())
    return np.concatenate(parts).astype(np.float32)


def captured(codec, vector):
    return 1 - float(np.square(vector - codec.decode(codec.encode(vector))).sum()) / float(
        np.square(vector).sum()
    )


@pytest.mark.parametrize("bound", [100, 300, 1000, 5000])
def test_body_fills_its_budget_and_never_more(bound):
    body = Config(max_bytes=bound).build(LAYOUT).encode(low_rank(0))
    assert 0.8 * bound <= len(body) <= bound


def test_budget_in_bits_per_value_is_one_in_bytes():
    """8,074 values at half a bit: 504 bytes."""
    assert LAYOUT.size == 8 * 192 + 576 * 8 + 10 + 10 * 192
    by_bits = Config(bits_per_value=0.5).build(LAYOUT).encode(low_rank(1))
    assert by_bits == Config(max_bytes=504).build(LAYOUT).encode(low_rank(1))


def test_low_rank_is_worth_more_than_large_values():
    """At the bytes of the top 5 % signs, more than twice the energy."""
    vector = low_rank(2)
    signs = TopSigns(keep=0.05).build(LAYOUT)
    ours = Config(max_bytes=len(signs.encode(vector))).build(LAYOUT)
    assert captured(ours, vector) > 2 * captured(signs, vector)


def test_more_bytes_capture_more():
    vector = low_rank(3)
    shares = [captured(Config(max_bytes=b).build(LAYOUT), vector) for b in (64, 250, 1000, 4000)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.99


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1e-36])
def test_vectors_near_nothing_become_nothing(scale):
    codec = Config().build(LAYOUT)
    assert codec.encode((low_rank(4) * np.float32(scale)).astype(np.float32)) == b""
    assert not codec.decode(b"").any()


def test_damaged_counts_of_levels_are_refused():
    codec = Config(max_bytes=300).build(LAYOUT)
    body = bytearray(codec.encode(low_rank(5)))
    body[4:20] = b"\xff" * 16
    with pytest.raises(CodecError):
        codec.decode(bytes(body))


@pytest.mark.parametrize("body", ["70487698cc00d82c", "5eafc836000044c8", "926096fda800f000"])
def test_a_body_of_directions_without_any_levels_is_zeros(body):
    """Nobody writes one, but once it raised an IndexError."""
    codec = Config().build(Layout((("w", (20, 6)), ("b", (5,)))))
    assert not codec.decode(bytes.fromhex(body)).any()
