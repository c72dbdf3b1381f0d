"""A real vehicle process against the real server, with pictures in a folder."""

import signal
import sys
import time

import numpy as np
import pytest
from PIL import Image

from sim import world
from sim.processes import children
from tests.cluster.conftest import ROOT

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    root = tmp_path_factory.mktemp("frames")
    for label in (0, 3, 7):
        (root / world.CLASSES[label]).mkdir()
        for number, image in enumerate(world.render(np.full(12, label), seed=label)):
            Image.fromarray(image).save(root / world.CLASSES[label] / f"{number}.png")
    return root


def start(server, folder, frames, name, *more):
    pairs = [
        f"vehicle.name={name}",
        f"vehicle.state={folder / name}",
        f"vehicle.sensor.root={frames}",
        f"transport.port={server.broker.port}",
        "vehicle.trainer={local_steps: 2, batch_size: 8}",
        f"vehicle.server_key={server.state / 'server.pub'}",
        "vehicle.agent={status_s: 1}",
        *more,
    ]
    argv = [sys.executable, "-m", "fleetfl", "vehicle", "run", str(ROOT / "configs/vehicle.yaml")]
    argv += [word for pair in pairs for word in ("--set", pair)]
    return children.start(argv, log=folder / f"{name}.log")


def wait_for(server, kind, name, process, log, after=0, patience_s=90.0):
    deadline = time.monotonic() + patience_s
    while True:
        found = [e for e in server.events(kind) if e["vehicle"] == name]
        if len(found) > after:
            return found
        assert time.monotonic() < deadline, f"no {kind} of {name}:\n{log.read_text()}"
        time.sleep(0.1)


def test_a_vehicle_learns_from_its_folder_and_says_goodbye(server, tmp_path, frames):
    """Its updates, of some 40 KB, go up in chunks."""
    limit = "transport.max_payload_bytes=16384"
    process, log = start(server, tmp_path, frames, "drone-01", limit), tmp_path / "drone-01.log"
    try:
        accepted = wait_for(server, "accepted", "drone-01", process, log, after=2)
        assert all(e["num_examples"] == 16 for e in accepted)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        children.stop(process, 5)
    goodbye = wait_for(server, "offline", "drone-01", process, log)
    assert any(e["bytes_up"] > 0 for e in goodbye)
    assert "Traceback" not in log.read_text()


def test_a_killed_vehicle_is_reported_and_its_outbox_is_emptied_after(server, tmp_path, frames):
    process, log = start(server, tmp_path, frames, "drone-02"), tmp_path / "drone-02.log"
    try:
        wait_for(server, "accepted", "drone-02", process, log)
        process.kill()
        process.wait(10)
        wait_for(server, "offline", "drone-02", process, log)  # the broker published its last will
        before = len([e for e in server.events("accepted") if e["vehicle"] == "drone-02"])
        process = start(server, tmp_path, frames, "drone-02")
        wait_for(server, "accepted", "drone-02", process, log, after=before)
        names = [
            (e["boot"], e["sequence"])
            for e in server.events("accepted")
            if e["vehicle"] == "drone-02"
        ]
        assert len(names) == len(set(names))
        assert len({boot for boot, _ in names}) == 2
    finally:
        children.stop(process, 10)
