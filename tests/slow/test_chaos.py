"""A sample of the chaos runs (`make chaos` makes 200): broker, Ray and vehicles are real, and break.

None has an endpoint: one such run costs as much as five others.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).parents[2] / "configs" / "chaos.yaml"
RUNS = 12


def chaos(folder, runs, config=CONFIG, settings=("chaos.num_faults=[1, 3]",)):
    """`fleetfl chaos run`: its exit status, and the ledger's figures."""
    settings = [f"chaos.runs={folder}", "chaos.endpoint_every=0", "chaos.faults_s=2.5", *settings]
    command = ["chaos", "run", str(config), "--json", "--workers=2", f"--runs={runs}"]
    words = [word for setting in settings for word in ("--set", setting)]
    argv = [sys.executable, "-m", "fleetfl", *command, *words]
    done = subprocess.run(argv, check=False, stdout=subprocess.PIPE, text=True)
    return done.returncode, json.loads(done.stdout)


def test_no_update_is_lost_or_counted_twice_whatever_breaks_and_a_second_call_makes_no_run_again(
    tmp_path,
):
    status, found = chaos(tmp_path, RUNS)
    log = (tmp_path / "chaos" / "results.jsonl").read_text()
    assert status == 0, log
    wrong = ("lost", "counted_twice", "unresolved", "not_recovered")
    assert {key: found[key] for key in wrong} == dict.fromkeys(wrong, 0)
    assert found["runs"] == RUNS
    assert found["counted"] > 5 * RUNS
    assert chaos(tmp_path, RUNS) == (0, found)
    assert (tmp_path / "chaos" / "results.jsonl").read_text() == log


def test_a_fleet_goes_on_from_a_backup_when_its_servers_host_is_lost(tmp_path):
    """All that had a receipt before the backup is counted; what is not is said, and nothing waits."""
    drill = CONFIG.with_name("chaos-restore.yaml")
    status, found = chaos(tmp_path, 2, drill, ("chaos.num_faults=[0, 0]",))
    assert status == 0, (tmp_path / "chaos-restore" / "results.jsonl").read_text()
    wrong = ("lost", "counted_twice", "unresolved", "not_recovered")
    assert {key: found[key] for key in wrong} == dict.fromkeys(wrong, 0)
    assert found["lost_with_host"] + found["counted"] > 10
