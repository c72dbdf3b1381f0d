"""A sample of benchmarks/endurance.py: what a server keeps of vehicles that restart every day."""

import pytest

from benchmarks.endurance import growth, lived
from sim.fleet import virtual_time

pytestmark = pytest.mark.unit


def test_of_vehicles_that_restart_daily_a_server_keeps_no_more_from_day_to_day(tmp_path):
    """6 vehicles, 2 updates each a day, each a version: when 50 have passed (`max_staleness`), in the fifth
    day, the first boots are of no use any more. SQLite's log in the journal's size ends at 4 MB.
    """
    days = virtual_time.run(lived(tmp_path, 6, 9, 2, goal=1), start_s=1.7e9)
    assert days[-1].updates == 9 * 6 * 2
    grown = growth(days)
    for kind in ("boots_known", "checkpoint_kb", "keys_kb", "series"):
        assert grown[kind] <= 1.1, grown
    assert days[-1].journal_kb < 5_000
