"""Parts that several codecs share: squeezing, bit planes, blocks with scales, bfloat16."""

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fleetfl.codecs import CodecError, squeeze, unsqueeze
from fleetfl.codecs._blocks import MAX_SCALE, parted, quantized, scaled
from fleetfl.codecs._planes import pack, read_varints, unpack, varints
from fleetfl.codecs.bfloat16 import rounded, widened
from fleetfl.codecs.int4 import Config as Int4
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit


def test_zstd_is_left_out_where_it_saves_nothing():
    noise, zeros = np.random.default_rng(0).bytes(5000), bytes(5000)
    assert squeeze(noise, 3) == b"\0" + noise
    assert len(squeeze(zeros, 3)) < 50
    assert squeeze(zeros, 0) == b"\0" + zeros
    for raw in (noise, zeros, b"", b"x"):
        assert bytes(unsqueeze(squeeze(raw, 3), len(raw))) == raw


def test_what_stands_as_it_is_is_not_copied():
    body = squeeze(np.random.default_rng(0).bytes(5000), 3)
    assert np.shares_memory(
        np.frombuffer(unsqueeze(body, 5000), np.uint8), np.frombuffer(body, np.uint8)
    )


def test_bomb_is_refused_before_it_unpacks():
    bomb = squeeze(bytes(2**27), 3)
    assert len(bomb) < 20_000
    with pytest.raises(CodecError, match="declares 134217728 bytes, expected at most 100"):
        unsqueeze(bomb, 100)


def test_size_that_is_not_declared_is_refused():
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
    with pytest.raises(CodecError, match="declares"):
        unsqueeze(b"\1" + frame, 100)


@pytest.mark.parametrize("body", [b"", b"\2abc", b"\1abc", b"\0abcd"])
def test_what_was_not_squeezed_is_refused(body):
    with pytest.raises(CodecError):
        unsqueeze(body, 3)


@given(st.integers(1, 8), st.binary(max_size=70))
def test_planes_round_trip(bits, content):
    values = np.frombuffer(content, np.uint8) & (2**bits - 1)
    np.testing.assert_array_equal(unpack(pack(values, bits), bits, values.size), values)


def test_planes_by_hand():
    """1, 2, 3: lower bits 1 0 1, upper bits 0 1 1."""
    assert pack(np.uint8([1, 2, 3]), 2) == bytes([0b101, 0b110])


@given(st.lists(st.integers(0, 2**35 - 1), max_size=9), st.binary(max_size=3))
def test_varints_round_trip(numbers, rest):
    assert read_varints(varints(numbers) + rest, len(numbers)) == (numbers, rest)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9])
def test_varints_that_do_not_end_are_refused(data):
    with pytest.raises(CodecError):
        read_varints(data, 1)


def test_int8_by_hand():
    """Largest 254: scale 2. 5 / 2 = 2.5 rounds to even, 2, which is 4; -3 / 2 = -1.5 to -2, so -4."""
    codec = Int8(block=8).build(Layout.flat(4))
    body = codec.encode(np.float32([254, 5, -3, 0]))
    assert body == b"\x08\0\0\0" + np.float32(2).tobytes() + b"\0" + bytes([127, 2, 254, 0])
    assert codec.decode(body).tolist() == [254, 4, -4, 0]


def test_int4_by_hand():
    """Largest 14: scale 2. 7, 1 (of 3 / 2 = 1.5, to 2), -3 as 8 + value, the first of a pair below."""
    codec = Int4(block=8, level=0).build(Layout.flat(3))
    body = codec.encode(np.float32([14, 3, -6]))
    assert body == b"\x08\0\0\0" + np.float32(2).tobytes() + b"\0" + bytes([0xAF, 0x05])
    assert codec.decode(body).tolist() == [14, 4, -6]


def test_blocks_have_scales_of_their_own():
    head, values = quantized(np.float32([1] * 8 + [1000] * 3), 8, 127)
    block, scale, rest = parted(head + b"rest", 11)
    assert (block, values.tolist(), bytes(rest)) == (8, [127] * 11, b"rest")
    np.testing.assert_allclose(scaled(values, scale, block), [1] * 8 + [1000] * 3, rtol=1e-6)


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf, -np.inf, MAX_SCALE * 1.01])
def test_scales_that_could_overflow_are_refused(scale):
    head = b"\x08\0\0\0" + np.float32(scale).tobytes()
    with pytest.raises(CodecError, match="scale"):
        parted(head, 8)
    assert parted(b"\x08\0\0\0" + np.float32(MAX_SCALE).tobytes(), 8)[1] == MAX_SCALE


def test_values_that_int8_cannot_scale_are_refused():
    with pytest.raises(CodecError, match=r"magnitude 3.3999.*e\+38, expected at most 3.376"):
        Int8().build(Layout.flat(1)).encode(np.float32([3.4e38]))


def test_bfloat16_rounds_to_even_by_hand():
    """A step is 2^-7 at 1. Half a step falls to 1 (even), three halves rise to 2 steps (even)."""
    values = np.float32([1 + 2**-8, 1 + 3 * 2**-8, -0.0, 3.4e38])
    largest = (2 - 2**-7) * 2.0**127
    np.testing.assert_array_equal(widened(rounded(values)), [1, 1 + 2**-6, 0, largest])


def test_bfloat16_rounds_as_torch_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    values = bits.view(np.float32)
    values = values[np.abs(values) < 3e38]
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(widened(rounded(values)), expected)


def test_bfloat16_that_is_not_finite_is_refused():
    with pytest.raises(CodecError, match="not finite"):
        widened(np.uint16([0x3F80, 0x7FC0]))
