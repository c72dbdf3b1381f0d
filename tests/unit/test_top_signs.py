"""The largest values as signs: what is chosen, and what it costs."""

import numpy as np
import pytest

from fleetfl.codecs import CodecError
from fleetfl.codecs._planes import varints
from fleetfl.codecs.top_signs import Config
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
TWO = Layout((("a", (4,)), ("b", (2, 2))))


def through(config: Config, layout: Layout, values: list[float]) -> list[float]:
    codec = config.build(layout)
    return codec.decode(codec.encode(np.float32(values))).tolist()


def test_largest_three_of_eight_by_hand():
    """4 and -2 of the first tensor become 3 and -3, -8 of the second stays alone."""
    back = through(Config(keep=3 / 8), TWO, [0, 4, 0, -2, 1, -8, 0.5, 0])
    assert back == [0, 3, 0, -3, 0, -8, 0, 0]


def test_share_of_rms_hears_the_tensor_of_small_values():
    """By magnitude both kept ones are the first tensor's, by share of the rms one of each."""
    values = [100, 90, 80, 70, 0.001, 0.0, 0.0, 0.002]
    assert through(Config(keep=0.25), TWO, values)[:2] == [95, 95]
    back = np.array(through(Config(keep=0.25, by="share_of_rms"), TWO, values))
    np.testing.assert_allclose(back, [100, 0, 0, 0, 0, 0, 0, 0.002], rtol=2**-8)


def test_of_equal_values_the_first_are_kept():
    assert through(Config(keep=3 / 8), TWO, [1, -1, 1, 1, 1, 1, -1, 1]) == [1, -1, 1] + [0] * 5


def test_zeros_are_never_sent():
    codec = Config(keep=1).build(TWO)
    assert codec.encode(np.zeros(8, np.float32)) == varints([0, 0])
    assert through(Config(keep=1), TWO, [0, 0, 0, 0, 0, 0, 0, 2]) == [0] * 7 + [2]


@pytest.mark.parametrize(("keep", "bits"), [(0.1, 0.57), (0.05, 0.34), (0.01, 0.091)])
def test_random_positions_cost_no_more_than_one_percent_over_the_floor(keep, bits):
    vector = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    body = Config(keep=keep).build(Layout.flat(vector.size)).encode(vector)
    assert 8 * len(body) / vector.size < 1.02 * bits


def test_more_kept_values_than_the_tensor_has_are_refused():
    with pytest.raises(CodecError, match="5 values are kept of a tensor that has fewer"):
        Config().build(TWO).decode(varints([5, 0]) + bytes(20))


def test_positions_outside_the_tensor_are_refused():
    """One value kept of the first tensor, at place 4 of 4: count 1, magnitude 1, sign +, gap 4.

    Width 1 for one of four places: 4 is two zeros, a one and lower bit 0.
    """
    body = varints([1, 0]) + b"\x80\x3f" + b"\0"
    codec = Config().build(TWO)
    assert codec.decode(body + bytes([0b110])).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    with pytest.raises(CodecError, match="outside its tensor"):
        codec.decode(body + bytes([0b0100]))
