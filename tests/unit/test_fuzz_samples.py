"""A sample of what `benchmarks/fuzz_wire.py` and `benchmarks/fuzz_files.py` do a million times."""

import warnings

import pytest

from benchmarks import fuzz_files, fuzz_wire

pytestmark = pytest.mark.unit


def test_frames_end_in_messages_or_in_our_own_errors(tmp_path):
    with warnings.catch_warnings():
        figures = fuzz_wire.run(2_500, seed=1, folder=tmp_path)
    assert figures["failures"] == []
    assert figures["came_to"]["unreadable, named"] > 100
    assert figures["peak_bytes_above_base"] < fuzz_wire.BOUND_BYTES


def test_settings_files_and_pages_end_in_values_or_in_our_own_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "actors.monitoring.status._fetched", None
    )  # put back what the run leaves there
    figures = fuzz_files.run(700, seed=1, folder=tmp_path)
    assert figures["failures"] == []
    kinds = {came_to.split()[0] for came_to in figures["came_to"]}
    assert len(kinds) == 8
