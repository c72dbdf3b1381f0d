"""Temporary folders go with their process, or when the next one starts; nobody else's are touched."""

import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from fleetfl.storage.scratch import OWNER, clear_leftovers, remove, scratch

pytestmark = pytest.mark.unit
HOLDER = """
import sys, time
from fleetfl.storage.scratch import scratch
with scratch() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def sleeper(folder, name="haproxy"):
    """A process of a program of this name, started with a file in the folder."""
    binary = folder.parent / name
    shutil.copy(sys.executable, binary)
    code = "import time; time.sleep(60)"
    return subprocess.Popen([str(binary), "-I", "-S", "-c", code, f"{folder}/haproxy.cfg"])


def test_a_folder_goes_with_its_context_and_what_was_started_from_it(temporary):
    with scratch() as folder:
        assert folder.parent == temporary
        process = sleeper(folder)
    assert not folder.exists()
    assert process.wait(10) == -signal.SIGTERM


def test_what_a_killed_process_left_goes_when_the_next_one_starts(temporary):
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        folder = temporary / holder.stdout.readline().decode().strip().rsplit("/", 1)[1]
        process = sleeper(folder)
        clear_leftovers()
        assert folder.exists()  # its owner lives
        assert process.poll() is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with scratch():
        assert not folder.exists()
        assert process.wait(10) == -signal.SIGTERM


def test_what_is_not_surely_ours_stays(temporary):
    bystander, strange = temporary / "fleetfl-1", temporary / "fleetfl-2"
    bystander.mkdir()  # nobody says whose it is
    target = temporary / "documents"
    target.mkdir()
    (target / OWNER).write_text("")
    strange.symlink_to(target)
    (temporary / "fleetfl-3").write_text("a file")
    clear_leftovers()
    assert bystander.is_dir()
    assert (target / OWNER).exists()
    assert (temporary / "fleetfl-3").exists()


def test_somebody_who_reads_a_log_there_is_left_alone(temporary):
    folder = temporary / "fleetfl-1"
    folder.mkdir()
    reader = sleeper(folder, "less")
    try:
        remove(folder)
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()
