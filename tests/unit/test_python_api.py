"""`import fleetfl` from notebooks and scripts: a fleet, a release, a question to the endpoint."""

import asyncio
import runpy
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

import fleetfl
from fleetfl.client import Client, ClientError
from fleetfl.config import ConfigError
from fleetfl.models import ModelConfig
from fleetfl.registry.registry import Registry, RegistryError, Scores
from fleetfl.vectors import digest
from sim.api import Summary
from tests import pictures_made as made
from tests.unit.test_model_commands import SETTINGS, release
from tests.unit.test_serving import Releases, replica

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
FLEET = {
    "fleet": "f",
    "seed": 3,
    "model": {"classes": ["car", "truck"]},
    "server": {"aggregator": {"kind": "fedbuff", "goal": 5}},
    "vehicle": {"codec": {"kind": "int8"}, "agent": {"status_s": 3600, "resend_s": 60}},
    "sim": {
        "clock": "virtual",
        "num_vehicles": 8,
        "learning": {"kind": "synthetic", "size": 16},
        "stop": {"hours": 48, "updates": 40},
    },
}


def test_the_import_is_light_and_the_names_are_listed():
    heavy = {"torch", "ray", "numpy", "pydantic", "sim", "actors", "importlib.metadata"}
    code = f"import sys, fleetfl; print(sorted({heavy} & set(sys.modules)), *dir(fleetfl))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("[] ")
    assert {"Client", "load_release", "simulate"} <= set(said.stdout.split())
    with pytest.raises(AttributeError, match="simulat'"):
        fleetfl.simulat  # noqa: B018


def test_a_fleet_runs_where_an_event_loop_runs_already(tmp_path):
    async def cell():
        return fleetfl.simulate(FLEET, f"sim.runs={tmp_path}")

    inside = asyncio.run(cell())
    outside = fleetfl.simulate(FLEET, f"sim.runs={tmp_path}", "fleet=g")
    assert isinstance(inside, Summary)
    assert inside.updates_accepted == 40
    assert inside.releases == 8
    assert inside.folder == tmp_path / "f"
    assert inside.accuracy_end == outside.accuracy_end
    accepted = inside.events("accepted")
    assert len(accepted) == 40
    assert np.mean([event["staleness"] for event in accepted]) == inside.staleness_mean
    assert {event["event"] for event in inside.events()} >= {"accepted", "released", "evaluated"}
    assert "sim" in FLEET
    assert "runs" not in FLEET["sim"]


def test_what_is_wrong_with_a_fleet_is_raised_inside_a_loop_too(tmp_path):
    async def cell():
        return fleetfl.simulate(FLEET, "sim.num_vehicle=3", f"sim.runs={tmp_path}")

    with pytest.raises(ConfigError, match=r"settings: sim\.num_vehicle: "):
        asyncio.run(cell())


def test_a_file_is_read_and_a_dict_may_extend_one(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(f"sim: {{runs: {tmp_path}, stop: {{updates: 5}}}}\n")
    summary = fleetfl.simulate({**FLEET, "extends": str(base)}, "sim.stop.updates=10")
    assert (summary.updates_accepted, summary.folder) == (10, tmp_path / "f")


def test_the_example_runs_as_it_stands(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    runpy.run_path(str(ROOT / "docs/examples/first_fleet.py"))
    said = capsys.readouterr().out
    assert "40 releases of 200 updates" in said
    assert "goal 5: 40 releases, goal 20: 10" in said


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A registry of the model of SETTINGS: version 1 favours class 2 and scored best, version 2 class 0."""
    folder = tmp_path_factory.mktemp("state")
    registry = Registry.of_server(folder)
    model = ModelConfig.model_validate(SETTINGS["model"]).build(seed=SETTINGS["seed"])
    vectors = []
    for version, favourite in enumerate((1, 2, 0)):
        bias = np.zeros(3, np.float32)
        bias[favourite] = 9
        tensors = {**model.layout.unflatten(model.vector().copy()), "head.bias": bias}
        vectors.append(model.layout.flatten(tensors))
        release(registry, model.layout, vectors[-1], version)
    registry.score("one", 1, Scores(digest(vectors[1]).hex(), 0.75, {}))
    return folder


@pytest.mark.parametrize(
    ("version", "favourite"), [("best", 2), ("newest", 0), (0, 1), ("one/1", 2)]
)
def test_a_release_is_loaded_ready_to_classify(state, version, favourite):
    model = fleetfl.load_release(state, version)
    assert not model.training
    images = np.zeros((2, 40, 30, 3), np.uint8)
    assert model.predictions(images).argmax(axis=1).tolist() == [favourite] * 2
    assert model(torch.from_numpy(images)).argmax(dim=1).tolist() == [favourite] * 2
    assert model.config.classes == ("a", "b", "c")


def test_a_file_of_the_registry_is_loaded_by_its_path(state, monkeypatch):
    path = Registry.of_server(state).path("one", 1)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    assert fleetfl.load_release(path).predictions(images).argmax() == 2
    monkeypatch.chdir(path.parent)
    assert fleetfl.load_release(path.name).predictions(images).argmax() == 2


def test_what_is_no_release_is_said(state, tmp_path):
    with pytest.raises(RegistryError, match="there are one/0, one/1, one/2"):
        fleetfl.load_release(state, 9)
    with pytest.raises(RegistryError, match="no releases in"):
        fleetfl.load_release(tmp_path)
    with pytest.raises(RegistryError, match="neither a server's state folder nor"):
        fleetfl.load_release(tmp_path / "nothing")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """URL of the endpoint's application on a real socket, and where its releases come from."""
    releases = Releases()
    served = replica(tmp_path_factory.mktemp("endpoint"), releases)
    config = uvicorn.Config(served.__serve_build_asgi_app__(), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/", releases, served
    server.should_exit = True
    thread.join()


def test_the_endpoint_is_asked_with_whatever_picture_one_has(endpoint, tmp_path):
    url, releases, served = endpoint
    client = fleetfl.Client(url)
    with pytest.raises(ClientError, match="no release loaded yet") as early:
        client.classify(made.noise())
    assert early.value.status == 503
    releases.put(1, served.model.vector())
    while served.card is None:
        time.sleep(0.01)
    (tmp_path / "frame.png").write_bytes(made.noise())
    pixels = np.asarray(Image.open(tmp_path / "frame.png").convert("RGB"))
    pictures = [made.noise(), str(tmp_path / "frame.png"), tmp_path / "frame.png", pixels]
    answers = [client.classify(picture) for picture in [*pictures, Image.fromarray(pixels)]]
    assert all(answer == answers[0] for answer in answers)
    assert isinstance(answers[0], fleetfl.Classification)
    assert answers[0].model_version == 1
    assert sum(answers[0].probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert client.model()["model_version"] == 1
    with pytest.raises(ClientError, match="body of 4 bytes") as odd:
        client.classify(b"junk")
    assert odd.value.status == 400


def test_an_endpoint_that_is_not_there_is_one_line():
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:9/v1/model does not answer: "):
        Client("http://127.0.0.1:9").model()
    with pytest.raises(ClientError, match="expected an http or https URL"):
        Client("file:///etc/hostname")
    with pytest.raises(TypeError, match="int is no picture"):
        Client("http://127.0.0.1:9").classify(3)
