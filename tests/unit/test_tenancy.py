"""A state folder has one process at a time, and its owner alone looks into it."""

import asyncio
import signal
import stat
import subprocess
import sys

import pytest

from fleetfl.storage.state_lock import TenancyError, state_lock
from fleetfl.transport.memory import Config as Memory
from vehicle_agent.config import VehicleConfig
from vehicle_agent.run import run

pytestmark = pytest.mark.unit
HOLDER = """
import sys, time
from pathlib import Path
from fleetfl.storage.state_lock import state_lock
with state_lock(Path(sys.argv[1]), "server"):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_second_server_is_refused_until_the_first_is_killed(tmp_path):
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        refusal = pytest.raises(
            TenancyError, match=rf"server\.state: .* another server .*process {holder.pid}"
        )
        with refusal, state_lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with state_lock(tmp_path):
        pass


def test_a_second_agent_is_refused(tmp_path, model_config):
    sensor = {"kind": "labelled_npz", "path": "x.npz"}
    config = VehicleConfig(
        fleet="f", name="v", model=model_config, transport=Memory(), state=tmp_path, sensor=sensor
    )
    with state_lock(tmp_path, "vehicle"):
        with pytest.raises(TenancyError, match=r"vehicle\.state: .* another vehicle"):
            asyncio.run(run(config))
        with state_lock(tmp_path):  # a server beside it is another matter
            pass


def test_no_other_user_looks_into_the_folder(tmp_path):
    (tmp_path / "old").mkdir(mode=0o755)
    for name in ("new", "old"):
        with state_lock(tmp_path / name):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
            for file in (tmp_path / name).iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / "x\0y",
        tmp_path / ("y" * 300),
    ):
        with (
            pytest.raises(TenancyError, match=r"server\.state: .* cannot be used"),
            state_lock(path),
        ):
            pass


def test_what_a_lock_file_says_is_nothing_to_go_by(tmp_path):
    """A copy of another server's folder, or anything else that was written there."""
    for content in (b"/tmp\n", b"\xff\xfe\0", b"1\n" * 10_000):
        (tmp_path / "server.lock").write_bytes(content)
        with state_lock(tmp_path):
            pass
