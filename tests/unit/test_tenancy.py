"""A state folder has one server at a time, and the next one hears what a killed one left."""

import signal
import subprocess
import sys

import pytest

from actors.tenancy import TenancyError, sole

pytestmark = pytest.mark.unit
HOLDER = """
import sys, time
from pathlib import Path
from actors.tenancy import sole
with sole(Path(sys.argv[1]), "what I was"):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_second_server_is_refused_until_the_first_is_killed_and_then_hears_of_it(tmp_path):
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        refusal = pytest.raises(TenancyError, match=r"server\.state: .* belongs to another server")
        with refusal, sole(tmp_path, "me"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with sole(tmp_path, "me") as before:
        assert before == "what I was"


def test_one_that_ends_in_order_leaves_nothing(tmp_path):
    with sole(tmp_path / "new", "me") as before:
        assert before == ""
    with sole(tmp_path / "new", "me") as before:
        assert before == ""
