"""The flat vector and its layout."""

import numpy as np
import pytest

from fleetfl.vectors import Layout, digest

pytestmark = pytest.mark.unit
TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([7, 8])}


def test_round_trip():
    layout = Layout.of(TENSORS)
    vector = layout.flatten(TENSORS)
    np.testing.assert_array_equal(vector, [7, 8, 0, 1, 2, 3, 4, 5])
    for name, tensor in layout.unflatten(vector).items():
        np.testing.assert_array_equal(tensor, TENSORS[name])


def test_fingerprint_follows_names_and_shapes():
    other = {**TENSORS, "b": TENSORS["b"].reshape(3, 2)}
    assert Layout.of(TENSORS).fingerprint == Layout.of(dict(reversed(TENSORS.items()))).fingerprint
    assert Layout.of(TENSORS).fingerprint != Layout.of(other).fingerprint


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"a": TENSORS["a"]}, "'b'"),
        ({**TENSORS, "c": TENSORS["a"]}, "'c'"),
        ({**TENSORS, "a": np.zeros(3, np.float32)}, r"a: shape \(3,\)"),
    ],
)
def test_unfit_tensors_are_named(tensors, says):
    with pytest.raises(ValueError, match=says):
        Layout.of(TENSORS).flatten(tensors)


def test_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"\(7,\)"):
        Layout.of(TENSORS).unflatten(np.zeros(7, np.float32))


def test_digest_is_of_the_little_endian_bytes():
    vector = np.float32([1, -2])
    assert digest(vector) == digest(vector.astype(">f4"))
    assert digest(vector) != digest(-vector)
