"""Brokers as child processes: they come up, say why not, keep their store, and die with us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.processes.brokers import Broker, BrokerError, mosquitto

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]


def is_running(pid: int) -> bool:
    """A zombie that nobody has waited for is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("kind", ["nats_server", "mosquitto"])
def test_broker_dies_with_its_killed_parent(kind: str, tmp_path: Path) -> None:
    """Started from a thread that ends at once: that alone must not kill it."""
    script = f"""
import concurrent.futures, pathlib, sys, time
from sim.processes.brokers import {kind}
context = {kind}(pathlib.Path(sys.argv[1]))
with concurrent.futures.ThreadPoolExecutor() as pool:
    broker = pool.submit(context.__enter__).result()
time.sleep(0.2)
print(broker.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "store")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    assert os.getpgid(pid) != os.getpgid(parent.pid)  # Ctrl-C goes to the parent alone
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=10)
    deadline_s = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not is_running(pid)


def test_restart_keeps_the_port_and_takes_a_new_process(broker: Broker) -> None:
    port, pid = broker.port, broker.pid
    broker.kill()
    assert not is_running(pid)
    with pytest.raises(BrokerError, match="not running"):
        _ = broker.pid
    broker.restart()
    assert broker.port == port
    assert broker.pid != pid
    broker.restart()  # also while it runs


def test_broker_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerError, match=r"(?s)did not come up on 127\.0\.0\.1:.*no_such_setting"),
        mosquitto(tmp_path / "store", extra_config="no_such_setting 1"),
    ):
        pass


def test_taken_port_is_an_error(broker: Broker, tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerError, match=f"port {broker.port} of 127.0.0.1 is taken"),
        mosquitto(tmp_path / "second", port=broker.port),
    ):
        pass
