"""What the codec bench reports, on vectors whose sizes are known."""

import numpy as np
import pytest

from fleetfl.config import ConfigError
from fleetfl.plugins import available
from fleetfl.vectors import Layout
from sim.bench.codec import configs_of, measure, named

pytestmark = pytest.mark.unit


def test_row_by_hand():
    """1,000 values of float32 without zstd: 4,001 bytes of body, and what frame and MQTT add.

    PUBLISH: 1 byte, 2 of length, 2 + 6 of topic "update", 2 of packet identifier: 13.
    """
    vectors = [np.random.default_rng(s).normal(size=1000).astype(np.float32) for s in range(2)]
    (row,) = measure(
        vectors, Layout.flat(1000), configs_of(["{kind: float32, level: 0}"]), topic="update"
    )
    assert row["codec"] == "float32 level=0"
    assert row["num_values"] == 1000
    assert 4001 + 64 < row["frame_bytes"] < 4001 + 64 + 100
    assert row["mqtt_bytes"] == row["frame_bytes"] + 13
    assert row["bits_per_value"] == pytest.approx(8 * row["mqtt_bytes"] / 1000, abs=1e-4)
    assert row["encode_values_per_s"] > 1e6
    assert row["decode_values_per_s"] > 1e6


def test_every_kind_is_measured_without_a_word():
    assert {config.kind_name for config in configs_of()} == set(available("fleetfl.codecs"))


def test_settings_that_differ_from_the_default_ones_are_named():
    (config,) = configs_of(["{kind: eden, bits: 2, scale: unbiased}"])
    assert named(config) == "eden bits=2"


@pytest.mark.parametrize(
    ("table", "says"),
    [("{kind: eden, bits: 9}", "bits"), ("{kind: zip}", "no kind 'zip'"), ("{", "not YAML")],
)
def test_codec_that_is_none_is_a_config_error(table, says):
    with pytest.raises(ConfigError, match=says):
        configs_of([table])
