"""Adapters and held-out frames on disk."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from fleetfl.evaluation.held_out import HeldOut, HeldOutError, read_held_out
from fleetfl.events.event_log import EventLog, EventReader
from fleetfl.registry.adapter_file import AdapterFileError, read_adapter, write_adapter
from fleetfl.tasks.classification import Classification
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit


def test_adapter_round_trip(tmp_path):
    layout = Layout((("a", (2, 3)), ("b", (4,))))
    vector = np.arange(10, dtype=np.float32)
    write_adapter(tmp_path / "deep" / "x.safetensors", layout, vector, version=3)
    again, values = read_adapter(tmp_path / "deep" / "x.safetensors")
    assert again == layout
    np.testing.assert_array_equal(values, vector)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "is missing"), (b"junk", "cannot be read"), (b"", "cannot be read")],
)
def test_unusable_adapter_files_are_named(tmp_path, content, says):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AdapterFileError, match=rf"x\.safetensors {says}"):
        read_adapter(path)


def test_an_adapter_that_is_not_finite_is_refused(tmp_path):
    save_file({"w": np.float32([1, np.nan])}, tmp_path / "x.safetensors")
    with pytest.raises(AdapterFileError, match="w is not finite float32"):
        read_adapter(tmp_path / "x.safetensors")


HELD = HeldOut(
    np.zeros((4, 8, 8, 3), np.uint8),
    np.array([0, 1, 1, 0]),
    np.array(["fog", "fog", "rain", "rain"]),
)


def test_held_out_round_trip_and_accuracy(tmp_path):
    """Right, right, wrong, right: 3 of 4; fog 2 of 2, rain 1 of 2."""
    HELD.save(tmp_path / "h.npz")
    again = read_held_out(tmp_path / "h.npz", Classification(("a", "b")))
    told = np.eye(2, dtype=np.float32)[[0, 1, 0, 0]]
    assert again.accuracy(Classification(("a", "b")), told) == (0.75, {"fog": 1.0, "rain": 0.5})


def test_unusable_held_out_files_are_named(tmp_path):
    with pytest.raises(HeldOutError, match=r"gone\.npz are missing"):
        read_held_out(tmp_path / "gone.npz", Classification(("a", "b")))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(HeldOutError, match="cannot be read"):
        read_held_out(tmp_path / "junk.npz", Classification(("a", "b")))
    HELD.save(tmp_path / "h.npz")
    with pytest.raises(HeldOutError, match="labels from 0 to 1, the model has 1 classes"):
        read_held_out(tmp_path / "h.npz", Classification(("a",)))


def test_events_are_read_line_by_whole_line(tmp_path):
    path = tmp_path / "events.jsonl"
    log, reader = EventLog(path), EventReader(path)
    log.write("journal_resumed")
    with path.open("ab") as other:
        other.write(b'{"event": "half')
    assert [e["event"] for e in reader.read()] == ["journal_resumed"]
    with path.open("ab") as other:
        other.write(b'"}\n')
    assert [e["event"] for e in reader.read()] == ["half"]
    log.close()
