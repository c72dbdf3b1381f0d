"""`fleetfl bench codec` on updates that vehicles really made."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_json_has_a_row_for_each_codec_and_nothing_else():
    argv = ["bench", "codec", "--json", "--updates", "2"]
    argv += ["--set", "sim.dataset.num_initial=100", "--set", "vehicle.trainer.local_steps=2"]
    argv += ["--codec", "{kind: float32}", "--codec", "{kind: eden, bits: 1}"]
    done = subprocess.run(
        [sys.executable, "-m", "fleetfl", *argv],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    whole, one_bit = json.loads(done.stdout)
    assert (whole["codec"], one_bit["codec"]) == ("float32", "eden")
    assert whole["num_values"] == one_bit["num_values"] == 38_794
    assert one_bit["bits_per_value"] < 1.1
    assert whole["bits_per_value"] > 20
    assert "2 updates of 2 vehicles" in done.stderr
