"""What every codec promises. A new file in fleetfl/codecs is tested here without an edit."""

import contextlib
import importlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetfl.codecs import Codec, CodecError, decoder
from fleetfl.plugins import available
from fleetfl.vectors import Layout

pytestmark = pytest.mark.contracts
KINDS = available("fleetfl.codecs")
ERROR = {"float32": 0.0, "int8": 0.5 / 127}
"""Largest error as a share of the largest magnitude; a new kind states its own."""


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def codec(kind) -> Callable[[int], Codec]:
    """The codec of a kind by its default settings, for vectors of so many values."""
    config = importlib.import_module(f"fleetfl.codecs.{kind}").Config()
    return lambda size: config.build(Layout.flat(size))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 10_001, 1_000_000])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_round_trip_within_the_stated_error(kind, codec, size, scale):
    vector = (np.random.default_rng(0).normal(size=size) * scale).astype(np.float32)
    back = codec(size).decode(codec(size).encode(vector))
    assert back.dtype == np.float32
    assert back.shape == (size,)
    bound = ERROR[kind] * np.abs(vector).max(initial=0) * (1 + 1e-5)
    assert np.abs(back - vector).max(initial=0) <= bound


def test_zeros_stay_zeros(codec):
    assert not codec(1000).decode(codec(1000).encode(np.zeros(1000, np.float32))).any()


def test_the_decoder_of_the_kind_reads_any_settings(kind):
    module = importlib.import_module(f"fleetfl.codecs.{kind}")
    settings = module.Config(**({"block": 24} if "block" in module.Config.model_fields else {}))
    layout = Layout.flat(1000)
    odd = settings.build(layout)
    body = odd.encode(np.random.default_rng(1).normal(size=1000).astype(np.float32))
    np.testing.assert_array_equal(decoder(kind, layout).decode(body), odd.decode(body))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(codec, bad):
    vector = np.ones(300, np.float32)
    vector[17] = bad
    with pytest.raises(CodecError, match="value 17 of 300"):
        codec(300).encode(vector)


def test_wrong_size_is_refused(codec):
    body = codec(1000).encode(np.ones(1000, np.float32))
    for size in (0, 1, 999, 1001, 100_000):
        with pytest.raises(CodecError):
            codec(size).decode(body)


@given(cut=st.integers(0, 4000), value=st.integers(0, 255))
@pytest.mark.parametrize("kind_name", KINDS)
def test_damaged_bodies_give_codec_error_or_finite_values(kind_name, cut, value):
    codec = decoder(kind_name, Layout.flat(1000))
    body = bytearray(codec.encode(np.linspace(-1, 1, 1000, dtype=np.float32)))
    body[cut % len(body)] = value
    for damaged in (bytes(body), bytes(body[: cut % len(body)])):
        with contextlib.suppress(CodecError):
            assert codec.decode(damaged).shape == (1000,)


def test_input_is_left_as_it_is(codec):
    vector = np.random.default_rng(0).normal(size=100).astype(np.float32)
    vector.flags.writeable = False  # as arrays that crossed Ray are
    codec(100).encode(vector)
