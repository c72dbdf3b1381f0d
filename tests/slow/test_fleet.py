"""Whole runs by the command a user types: processes are killed, and the run goes on and says so."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from fleetfl.events.event_log import EventReader
from sim import world
from sim.live.run import require_clearable
from sim.processes import children
from tests.cluster.test_recovery import RUN
from tests.slow.test_docs import DEMO, starting

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KEYS = {
    "releases", "updates_accepted", "updates_refused", "staleness", "bytes_up", "bytes_up_float32",
    "bytes_full_model", "accuracy", "http_requests", "http_failures", "seed", "versions",
}  # fmt: skip


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def events(folder: Path, kind: str) -> list[dict]:
    path = folder / "events.jsonl"
    return [e for e in EventReader(path).read() if e["event"] == kind] if path.exists() else []


def wait_for(condition, process, log, what, patience_s=400.0):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert process.poll() is None, f"the run ended before {what}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"no {what} after {patience_s} s:\n{log.read_text()}"
        time.sleep(0.2)


def proxies(run: str) -> list[psutil.Process]:
    """HAProxies that were started in this run, wherever they hang in the tree."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "haproxy" in each.name() and each.environ().get(RUN) == run:
                found.append(each)
    return found


def test_the_readmes_demo_goes_on_when_a_vehicle_and_a_replica_are_killed(tmp_path):
    log, folder, start = tmp_path / "log", tmp_path / "runs" / "quickstart", starting(tmp_path)
    start["env"][RUN] = str(tmp_path)
    process = children.start(DEMO.split(), log=log, **start)
    try:
        wait_for(lambda: events(folder, "accepted"), process, log, "update")
        victim = next(e for e in events(folder, "vehicle_started") if e["vehicle"] == "v01")
        assert proxies(str(tmp_path))
        os.kill(victim["pid"], signal.SIGKILL)
        os.kill(events(folder, "replica_started")[-1]["pid"], signal.SIGKILL)
        assert process.wait(400) == 0, log.read_text()
    finally:
        children.stop(process, 5)
    _, alive = psutil.wait_procs(proxies(str(tmp_path)), timeout=5)
    assert alive == []
    require_clearable(folder)  # the next demo takes its place
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() >= KEYS
    assert summary["accuracy"].keys() == {"start", "end", "ceiling", "by_condition"}
    assert summary["staleness"].keys() == {"mean", "max", "histogram"}
    assert summary["vehicles"]["v01"]["deaths"] == 1
    said = log.read_text()
    for incident in (
        "vehicle v01 died (SIGKILL) and was started again",
        "a Serve replica died and was replaced",
    ):
        assert incident in summary["incidents"]
        assert incident in said
    # Both lived on: the vehicle's second life was counted, and the endpoint followed to the end.
    boots = {e["boot"] for e in events(folder, "accepted") if e["vehicle"] == "v01"}
    assert len(boots | {e["boot"] for e in events(folder, "online") if e["vehicle"] == "v01"}) == 2
    assert any(e["vehicle"] == "v01" for e in events(folder, "offline"))
    assert summary["releases"] > 0
    assert events(folder, "measured")[-1]["version"] == summary["releases"]
    assert "<svg" in (folder / "report.html").read_text()


def test_ctrl_c_ends_all_that_a_run_started(tmp_path):
    argv = [sys.executable, "-m", "fleetfl", "demo"]
    argv += settings(
        f"sim.runs={tmp_path}", "sim.num_vehicles=2", "sim.stop.seconds=600",
        "sim.dataset.num_initial=300", "sim.dataset.num_held_out=100",
    )  # fmt: skip
    log, folder = tmp_path / "log", tmp_path / "quickstart"
    process = children.start(argv, log=log)
    try:
        wait_for(lambda: len(events(folder, "vehicle_started")) == 2, process, log, "vehicle")
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) > 6
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
        _, alive = psutil.wait_procs(started, timeout=20)
        assert [p.name() for p in alive] == []
    finally:
        children.stop(process, 5)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def photographs(tmp_path) -> Path:
    """An archive of the shape that CIFAR-10 has here, of rendered frames."""
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 600), ("test", 60)):
        labels = rng.integers(0, 10, count)
        parts |= {f"x_{part}": world.render(labels, seed=count, size=32), f"y_{part}": labels}
    path = tmp_path / "photographs.npz"
    np.savez(path, **parts)
    return path


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fleetfl", *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_photographs_over_mosquitto_with_a_ceiling(tmp_path, photographs):
    done = run(
        "sim", "run", str(ROOT / "configs/cifar10.yaml"),
        *settings(
            f"sim.runs={tmp_path / 'runs'}", f"sim.dataset.path={photographs}", "sim.num_vehicles=2",
            "sim.dataset.initial_rows=[0, 300]", "sim.dataset.fleet_rows=[300, 600]",
            "sim.broker=mosquitto", "sim.stop={releases: 2}",
            "sim.centralized_baseline={image_steps: 640}", "server.aggregator.goal=2",
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "runs" / "cifar10" / "summary.json").read_text())
    assert summary["releases"] >= 2
    assert 0 < summary["accuracy"]["ceiling"] <= 1
    assert "centralized" in done.stdout.lower()


def test_missing_photographs_are_named(tmp_path):
    done = run(
        "sim", "run", str(ROOT / "configs/cifar10.yaml"),
        *settings("sim.dataset.path=/gone.npz", f"sim.runs={tmp_path}"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "/gone.npz is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_vehicles_that_cannot_run_end_the_run_with_the_end_of_a_log(tmp_path, photographs):
    """Their shards are taken away after the run has checked them."""
    argv = [sys.executable, "-m", "fleetfl", "sim", "run", str(ROOT / "configs/cifar10.yaml")]
    argv += settings(
        f"sim.runs={tmp_path / 'runs'}", f"sim.dataset.path={photographs}", "sim.num_vehicles=2",
        "sim.dataset.initial_rows=[0, 300]", "sim.dataset.fleet_rows=[300, 600]", "sim.restart_s=0",
    )  # fmt: skip
    log, folder = tmp_path / "log", tmp_path / "runs" / "cifar10"
    process = children.start(argv, log=log)
    try:
        wait_for(lambda: events(folder, "serving"), process, log, "endpoint")
        for file in (folder / "shards").iterdir():
            file.unlink()
        assert process.wait(400) == 1
    finally:
        children.stop(process, 5)
    said = log.read_text()
    assert "ended 3 times right after its start (exit status 1)" in said
    assert re.search(r"shards/\S+ cannot be read", said)
    assert "Traceback" not in said
