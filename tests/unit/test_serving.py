"""The endpoint's HTTP face, in process; tests/cluster has it behind Ray Serve."""

import asyncio
import base64
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient

from actors.config import ServerConfig
from actors.serving.app import ServedModel, build_app
from fleetfl.codecs import decoder
from fleetfl.events.event_log import EventReader
from fleetfl.protocol.messages import Snapshot
from fleetfl.releases.generations import order_of
from fleetfl.vectors import Layout, digest
from sim import world
from tests import pictures_made as made

pytestmark = pytest.mark.unit


class Releases:
    """An aggregator's `newer`, fed by the test."""

    def __init__(self):
        self.newest = None

    def put(self, version, vector):
        body = decoder("float32", Layout.flat(vector.size)).encode(vector)
        self.newest = Snapshot("one", version, bytes(8), digest(vector), "float32", body)

    async def wait_for_version(self, than):
        while self.newest is None or order_of(self.newest) <= than:
            await asyncio.sleep(0.01)
        return self.newest


@pytest.fixture
def releases():
    return Releases()


@pytest.fixture
def served(tmp_path, releases):
    return replica(tmp_path, releases)


def replica(tmp_path, releases, **http):
    config = ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": {"classes": world.CLASSES},
            "transport": {"kind": "mqtt"},
            "state": tmp_path,
            "http": {
                "max_body_bytes": 100_000,
                "max_pixels": 10_000,
                "precision": "float32",
                **http,
            },
        }
    )
    return ServedModel(config, releases.wait_for_version)


@pytest.fixture
def http(served):
    with TestClient(served.__serve_build_asgi_app__()) as client:
        yield client


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
        answer = http.post("/v1/classify", content=made.noise())
        assert answer.status_code == 200
        assert answer.json()["label"] == world.CLASSES[favourite]
        assert answer.json()["model_version"] == card["model_version"] == version
        assert answer.headers["X-Model-Version"] == str(version)
        assert sum(answer.json()["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert card["sha256"] == releases.newest.sha256.hex()
    assert http.get("/readyz").json() == {"status": "ready", "model_version": 5}
    events = [e["event"] for e in EventReader(tmp_path / "events.jsonl").read()]
    assert events == ["replica_started", "serving", "serving"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_of_any_size(http, served, releases, kind):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    assert http.post("/v1/classify", content=made.noise(33, 47, kind)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "0 bytes is not a whole PNG or JPEG"),
        (b"GIF89a junk", 400, "not a whole PNG or JPEG"),
        (made.noise()[:100], 400, "not a whole PNG or JPEG"),
        (made.noise(90, 90, "JPEG")[:300], 400, "not a whole PNG or JPEG"),
        (made.noise(kind="BMP"), 400, "not a whole PNG or JPEG"),
        (made.noise(101, 100), 400, "100 x 101, expected at most 10000 pixels"),
        (bytes(100_001), 413, "over 100000 bytes"),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(http, served, releases, body, status, says):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    answer = http.post("/v1/classify", content=body)
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert http.post("/v1/classify", content=made.noise()).status_code == 200


def test_nobody_is_sent_to_the_host_that_a_request_names(http):
    answer = http.get("/healthz/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert answer.status_code == 404
    assert "Location" not in answer.headers


def test_openapi_describes_the_body(http):
    api = http.get("/openapi.json").json()
    body = api["paths"]["/v1/classify"]["post"]["requestBody"]
    assert set(body["content"]) == {"image/png", "image/jpeg", "image/webp"}


def test_answers_are_the_models_own_to_the_bit(http, served, releases):
    served.model.head.weight.data.normal_()
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    for data in (made.noise(), made.noise(33, 64), made.noise(33, 47, "JPEG"), made.noise(99, 64)):
        own = served.model.predictions(made.opened(data)[None])[0]
        answer = http.post("/v1/classify", content=data).json()["probabilities"]
        assert list(answer.values()) == [float(p) for p in own]


def test_pictures_that_a_decoder_chokes_on_are_the_senders_fault(http, served, releases):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    for body in (
        made.with_chunk(b"gAMA", b"\0"),
        made.empty_png(20_000, 10_000, 1, 0),
        made.scan_bomb(64, 4000),
        made.noise(400, 20, "JPEG")[:-200],
    ):
        answer = http.post("/v1/classify", content=body)
        assert answer.status_code == 400
        assert f"body of {len(body)} bytes is not a whole PNG or JPEG" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (
            b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n"
            + made.noise()
            + b"\r\n--x--",
            {"Content-Type": "multipart/form-data; boundary=x"},
            "multipart form",
        ),
        (base64.b64encode(made.noise()), {}, "it is base64"),
        (base64.b64encode(made.noise(kind="JPEG")), {"Content-Type": "text/plain"}, "it is base64"),
        (b"data:image/png;base64," + base64.b64encode(made.noise()), {}, "data: URL"),
        (b'{"image": "iVBORw0KGgo"}', {"Content-Type": "application/json"}, "it is JSON"),
        (b"file=%89PNG%0D", {"Content-Type": "application/x-www-form-urlencoded"}, "HTML form"),
        (b"\x1f\x8b\x08" + bytes(20), {"Content-Encoding": "gzip"}, "it is packed"),
        (b"<svg/>", {}, "SVG"),
        (b"https://example.org/a.png", {}, "an address"),
    ],
)
def test_a_picture_in_a_wrapping_is_told_what_to_send(http, served, releases, body, headers, says):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    answer = http.post("/v1/classify", content=body, headers=headers)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]
    assert "curl --data-binary @picture.jpg" in answer.json()["detail"]


def test_curls_own_content_type_does_not_matter(http, served, releases):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/v1/classify", content=made.noise(), headers=headers).status_code == 200


def test_head_is_get_without_the_body(http, served, releases):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    for path in ("/healthz", "/readyz", "/v1/model", "/openapi.json", "/docs"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == http.get(path).headers["content-length"]
    assert http.head("/v1/classify").status_code == 405


def diverged(served):
    """Finite, and so large that nothing which comes out of it is."""
    return np.full_like(served.model.vector(), 3e38)


def test_a_release_without_finite_answers_is_refused_and_the_old_one_stays(
    http, served, releases, tmp_path
):
    releases.put(3, served.model.vector())
    wait_for(http, 3)
    before = http.post("/v1/classify", content=made.noise()).json()
    releases.put(4, diverged(served))
    while http.get("/v1/model").json()["refused"] is None:
        pass
    card = http.get("/v1/model").json()
    assert card["model_version"] == 3
    assert card["refused"]["model_version"] == 4
    assert "not finite" in card["refused"]["reason"]
    assert http.get("/readyz").json()["refused"] == card["refused"]
    assert http.post("/v1/classify", content=made.noise()).json() == before
    sample = served.metrics.registry.get_sample_value("fleetfl_releases_refused_total")
    events = EventReader(tmp_path / "events.jsonl").read()
    assert sample == len([e for e in events if e["event"] == "release_refused"]) == 1
    releases.put(5, served.model.vector())
    assert wait_for(http, 5)["refused"] is None


@pytest.mark.parametrize("how", ["diverged", "damaged"])
def test_a_first_release_that_is_unfit_leaves_it_not_ready_and_says_why(
    http, served, releases, how
):
    releases.put(0, diverged(served))
    if how == "damaged":
        releases.newest = Snapshot("one", 0, bytes(8), bytes(32), "float32", b"short")
    while "0 is refused" not in (answer := http.get("/readyz")).json()["detail"]:
        pass
    assert answer.status_code == 503
    assert http.post("/v1/classify", content=made.noise()).status_code == 503


def test_an_answer_that_is_no_number_is_never_given(http, served, releases):
    releases.put(0, served.model.vector())
    wait_for(http, 0)
    served.model.head.bias.data[:] = np.nan
    answer = http.post("/v1/classify", content=made.noise())
    assert answer.status_code == 503
    assert "no finite answer" in answer.json()["detail"]


class Sender:
    """A client below HTTP: sends its parts, then stalls or leaves, and keeps what is answered."""

    def __init__(self, *parts, method="POST", path="/v1/classify", leaves=False, headers=()):
        self.parts, self.leaves, self.sent = list(parts), leaves, []
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
        }
        self.scope |= {
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "scheme": "http",
        }
        self.scope |= {
            "headers": list(headers),
            "client": ("c", 1),
            "server": ("s", 1),
            "root_path": "",
        }

    async def receive(self):
        if self.parts:
            part, is_last = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": not is_last}
        if not self.leaves:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def through(self, app):
        await app(self.scope, self.receive, self.send)
        return self.sent[0]["status"]


def scene(tmp_path, releases, play, **http):
    """Play it with a replica that is ready."""

    async def scenario():
        served = replica(tmp_path, releases, **http)
        releases.put(0, served.model.vector())
        app = build_app(served)
        async with app.router.lifespan_context(app):
            while not served.card:
                await asyncio.sleep(0.01)
            return await play(served, app)

    return asyncio.run(asyncio.wait_for(scenario(), 60))


WHOLE = (made.noise(), True)


def test_senders_that_stall_hold_up_nobody_and_have_a_deadline(tmp_path, releases):
    async def play(served, app):
        stalled = [
            asyncio.create_task(Sender((b"\x89PNG", False)).through(app)) for _ in range(600)
        ]
        await asyncio.sleep(0)
        for path in ("/healthz", "/readyz"):
            assert await Sender((b"", True), method="GET", path=path).through(app) == 200
        assert await Sender(WHOLE).through(app) == 200
        served.uploads.timeout_s = 0.05
        late = Sender((b"\x89PNG", False))
        assert await late.through(app) == 408
        assert b"longer than 0.05 s" in late.sent[1]["body"]
        # 512 may be at it: those that began first made room.
        assert {await task for task in stalled[:88]} == {408}
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)
        assert not served.uploads.under_way

    scene(tmp_path, releases, play)


def test_large_bodies_that_stall_make_room_for_others(tmp_path, releases):
    """A body may have 1,024 bytes here, and all together 16 times as many: two of 18 are too many."""

    async def play(served, app):
        part = (bytes(1000), False)
        stalled = [asyncio.create_task(Sender(part).through(app)) for _ in range(18)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert served.uploads.num_bytes == 16_000
        assert await asyncio.gather(*stalled[:2]) == [408, 408]
        assert await Sender((made.noise(8, 8), True)).through(app) == 200
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)

    scene(tmp_path, releases, play, max_body_bytes=1024)


def test_a_client_that_hangs_up_is_no_error(tmp_path, releases):
    async def play(served, app):
        for parts in ([], [(b"\x89PNG", False)]):
            assert await Sender(*parts, leaves=True).through(app) == 499
        count = served.metrics.registry.get_sample_value
        assert count("fleetfl_requests_total", {"code": "499"}) == 2
        assert count("fleetfl_requests_total", {"code": "500"}) is None

    scene(tmp_path, releases, play)


@pytest.mark.parametrize("declared", [b"100001", b"9" * 30])
def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(tmp_path, releases, declared):
    async def play(served, app):
        return await Sender(headers=[(b"content-length", declared)]).through(app)

    assert scene(tmp_path, releases, play) == 413


def test_large_pictures_hold_up_each_other_and_nobody_else(tmp_path, releases):
    """The large lane's thread is held; with that 16 wait, and the next is told to come again."""

    async def play(served, app):
        held = threading.Event()
        holder = asyncio.create_task(served.decoding.large.run(held.wait, 20))
        large = (made.empty_png(2000, 1500, 1, 0), True)
        waiting = [asyncio.create_task(Sender(large).through(app)) for _ in range(15)]
        while (
            len([t for t in waiting if not t.done()]) < 15 or served.decoding.large.num_waiting < 16
        ):
            await asyncio.sleep(0.01)
        one_more = Sender(large)
        assert await one_more.through(app) == 503
        assert (b"retry-after", b"1") in one_more.sent[0]["headers"]
        assert await Sender(WHOLE).through(app) == 200
        assert await Sender((b"", True), method="GET", path="/readyz").through(app) == 200
        held.set()
        assert {await task for task in (*waiting,)} == {200}
        await holder

    scene(tmp_path, releases, play, max_pixels=3_000_000)


def test_a_model_that_is_stuck_makes_the_replica_say_so(tmp_path, releases):
    async def play(served, app):
        held = threading.Event()
        holder = asyncio.create_task(served.model_lane.run(held.wait, 20))
        assert await Sender(WHOLE).through(app) == 503
        while served.model_lane.busy_s <= 0.2:  # on a busy machine its thread begins late
            await asyncio.sleep(0.02)
        stuck = Sender((b"", True), method="GET", path="/readyz")
        assert await stuck.through(app) == 503
        assert b"the model has been busy" in stuck.sent[1]["body"]
        assert await Sender((b"", True), method="GET", path="/healthz").through(app) == 200
        held.set()
        await asyncio.gather(holder, return_exceptions=True)
        assert await Sender(WHOLE).through(app) == 200

    scene(tmp_path, releases, play, answer_timeout_s=0.2)
