"""The endpoint's HTTP face, in process; tests/cluster has it behind Ray Serve."""

import asyncio
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from actors.config import ServerConfig
from actors.serving import ServedModel
from fleetfl.codecs import decoder
from fleetfl.messages import Snapshot
from fleetfl.telemetry import EventReader
from fleetfl.vectors import Layout, digest
from sim import world

pytestmark = pytest.mark.unit


class Releases:
    """An aggregator's `newer`, fed by the test."""

    def __init__(self):
        self.newest = None

    def put(self, version, vector):
        body = decoder("float32", Layout.flat(vector.size)).encode(vector)
        self.newest = Snapshot("one", version, bytes(8), digest(vector), "float32", body)

    async def newer(self, than):
        while self.newest is None or self.newest.version <= than:
            await asyncio.sleep(0.01)
        return self.newest


@pytest.fixture
def releases():
    return Releases()


@pytest.fixture
def served(tmp_path, releases):
    config = ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": {"classes": world.CLASSES},
            "transport": {"kind": "mqtt"},
            "state": tmp_path,
            "http": {"max_body_bytes": 100_000, "max_pixels": 10_000, "precision": "float32"},
        }
    )
    return ServedModel(config, releases.newer)


@pytest.fixture
def http(served):
    with TestClient(served.__serve_build_asgi_app__()) as client:
        yield client


def picture(kind="PNG", size=(64, 64)):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def wait_for(http, version):
    for _ in range(500):
        answer = http.get("/v1/model")
        if answer.status_code == 200 and answer.json()["model_version"] >= version:
            return answer.json()
    raise AssertionError(f"version {version} never came")


def test_nothing_is_answered_before_the_first_release(http):
    assert http.get("/healthz").json() == {"status": "alive"}
    for answer in (http.get("/readyz"), http.get("/v1/model"), http.post("/v1/classify")):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"


def test_each_release_is_served_as_it_comes(http, served, releases, tmp_path):
    """Only the head's bias differs: all in favour of class 3, then of class 7."""
    vector = served.model.vector()
    bias = np.zeros(10, np.float32)
    for version, favourite in ((4, 3), (5, 7)):
        bias[:] = 0
        bias[favourite] = 9
        tensors = {**served.model.layout.unflatten(vector.copy()), "head.bias": bias}
        releases.put(version, served.model.layout.flatten(tensors))
        card = wait_for(http, version)
        answer = http.post("/v1/classify", content=picture())
        assert answer.status_code == 200
        assert answer.json()["label"] == world.CLASSES[favourite]
        assert answer.json()["model_version"] == card["model_version"] == version
        assert answer.headers["X-Model-Version"] == str(version)
        assert sum(answer.json()["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert card["sha256"] == releases.newest.sha256.hex()
    assert http.get("/readyz").json() == {"status": "ready", "model_version": 5}
    events = [e["event"] for e in EventReader(tmp_path / "events.jsonl").read()]
    assert events == ["replica_started", "serving", "serving"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_png_and_jpeg_of_any_size(http, served, releases, kind):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    assert http.post("/v1/classify", content=picture(kind, (33, 47))).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "0 bytes is not a whole PNG or JPEG"),
        (b"GIF89a junk", 400, "not a whole PNG or JPEG"),
        (picture()[:100], 400, "not a whole PNG or JPEG"),
        (picture("JPEG", (90, 90))[:300], 400, "not a whole PNG or JPEG"),
        (picture("BMP"), 400, "not a whole PNG or JPEG"),
        (picture(size=(101, 100)), 400, "100 x 101, expected at most 10000 pixels"),
        (bytes(100_001), 413, "over 100000 bytes"),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(http, served, releases, body, status, says):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    answer = http.post("/v1/classify", content=body)
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert http.post("/v1/classify", content=picture()).status_code == 200


def test_openapi_describes_the_body(http):
    api = http.get("/openapi.json").json()
    body = api["paths"]["/v1/classify"]["post"]["requestBody"]
    assert set(body["content"]) == {"image/png", "image/jpeg"}
