"""Rate against accuracy: rows from runs, their picture, and a small bench with real training."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import yaml

from sim.bench.config import BenchConfig
from sim.bench.rate_accuracy import rows, run, table
from sim.report.intervals import mean_ci95
from sim.report.rate_curve import rate_curve
from sim.world import CLASSES

pytestmark = pytest.mark.unit
BENCH = {
    "fleet": "f",
    "model": {"classes": ["a", "b"]},
    "transport": {"kind": "mqtt"},
    "seeds": [1, 2, 3],
    "codecs": [
        {"name": "float32", "codec": {"kind": "float32"}},
        {"name": "ours", "seeds": 2, "codec": {"kind": "spectral", "max_bytes": 100}},
    ],
}


def line(accuracy, packet):
    return {
        "num_values": 1000,
        "accuracy": accuracy,
        "body_bytes": packet - 100,
        "mqtt_bytes": packet,
        "mqtt_bytes_max": packet + 1,
        "release_mqtt_bytes": 500.0,
    }


@pytest.fixture(scope="module")
def results():
    config = BenchConfig.model_validate(BENCH)
    float32, ours = config.codecs
    done = {
        (float32, 1): line(0.50, 4100),
        (float32, 2): line(0.52, 4100),
        (float32, 3): line(0.90, 4100),
        (ours, 1): line(0.49, 250),
        (ours, 2): line(0.50, 250),
    }
    return rows(config, done)


def test_loss_is_counted_on_shared_seeds_only(results):
    """Seeds 1 and 2: 1 and 2 points, so 1.5; the third seed of float32 has no partner.

    The interval: t(0.975, 1) = 12.71 times 0.7071 / sqrt(2) = 6.355.
    """
    ours = results[1]
    assert ours["loss_points"] == pytest.approx(1.5)
    assert ours["loss_ci95"] == pytest.approx(6.355, abs=1e-3)
    assert ours["seeds"] == 2
    assert ours["bits_per_value"] == 2.0
    assert results[0]["loss_points"] == 0.0


def test_mean_and_interval_by_hand():
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.30: 2.483."""
    assert mean_ci95([1, 2, 3]) == (2.0, pytest.approx(2.483, abs=1e-3))


def test_picture_shows_every_codec(results):
    drawn = ET.fromstring(rate_curve(results, about="<b> & co"))
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"float32", "ours", "250 B", "4,100 B", "<b> & co"} <= set(words)


def test_table_has_a_line_for_each_codec(results):
    assert table(results).row_count == 2


def test_small_bench_with_real_training_repeats_itself_and_goes_on_where_it_was(tmp_path):
    settings = {
        "fleet": "tiny",
        "seed": 3,
        "model": {"classes": list(CLASSES), "precision": "float32"},
        "server": {"aggregator": {"kind": "fedbuff", "goal": 2}},
        "vehicle": {"trainer": {"local_steps": 1, "batch_size": 4, "patch_keep_rate": 0.5}},
        "sim": {
            "runs": str(tmp_path / "runs"),
            "num_vehicles": 3,
            "dataset": {"kind": "drone_world", "num_initial": 60, "num_held_out": 20},
            "weathers": [{"condition": "fog"}],
        },
        "bench": {
            "updates": 5,
            "seeds": [1, 2],
            "codecs": [
                {"name": "float32", "codec": {"kind": "float32"}},
                {
                    "name": "ours",
                    "codec": {"kind": "spectral", "max_bytes": 300},
                    "release": {"kind": "spectral"},
                },
            ],
        },
    }
    path = tmp_path / "bench.yaml"
    path.write_text(yaml.safe_dump(settings))
    *_, (done, in_all, first) = run(path, workers=1)
    assert (done, in_all) == (4, 4)
    log = tmp_path / "runs" / "tiny" / "rate_accuracy.jsonl"
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert {entry["num_values"] for entry in lines} == {38_794}
    assert max(row["mqtt_bytes_max"] for row in first if row["codec"] == "ours") < 300 + 200
    log.write_text("".join(json.dumps(entry) + "\n" for entry in lines[1:]))
    started = run(path, workers=1)
    assert next(started)[:2] == (3, 4)
    *_, (_, _, again) = started
    assert again == first
    assert np.isfinite([row["accuracy_mean"] for row in again]).all()
