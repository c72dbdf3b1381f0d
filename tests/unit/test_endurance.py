"""A sample of benchmarks/endurance.py: what a server keeps of vehicles that restart every day."""

import pytest

from benchmarks.endurance import growth, lived
from sim import virtual_time

pytestmark = pytest.mark.unit


def test_of_vehicles_that_restart_daily_a_server_keeps_no_more_from_week_to_week(tmp_path):
    """6 vehicles, 2 updates each a day, every update a version: after 50 versions (`max_staleness`), so in the
    fifth day, the first boots are of no use any more."""
    days = virtual_time.run(lived(tmp_path, 6, 18, 2, 1), start_s=1.7e9)
    assert days[-1].updates == 18 * 6 * 2
    grown = growth(days)
    assert {kind: grown[kind] for kind in ("keys_kb", "series")} == {"keys_kb": 1.0, "series": 1.0}
