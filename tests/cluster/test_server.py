"""The real server from outside: updates over MQTT in, receipts and releases out, pictures over HTTP."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetfl.codecs import decoder, squeeze
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Receipt, Snapshot, Status, Update
from fleetfl.protocol.signing import OneKey, Signer
from fleetfl.transport.mqtt import Config as Mqtt
from fleetfl.vectors import digest
from sim import world
from sim.live.client import png
from tests import pictures_made as made
from tests.cluster.conftest import ROOT, running_server

pytestmark = pytest.mark.cluster
FLEET = "depot-7"
SIGNER = Signer(FLEET, Ed25519PrivateKey.from_private_bytes(bytes(32)))
BODY = png(world.render(np.array([0]), seed=1)[0])


@pytest.fixture(scope="module")
def layout(model_config):
    return model_config.build().layout


def newest(server) -> Snapshot:
    """What is kept at the broker, signed by the server."""
    key = OneKey(FLEET, server.state / "server.pub")

    async def read():
        transport = Mqtt(host=server.broker.host, port=server.broker.port)
        async with (
            transport.connect("reader") as link,
            link.subscribe(topics.snapshot(FLEET, 0)) as packets,
        ):
            packet = await asyncio.wait_for(packets.__anext__(), 10)
            packet.ack()
            return wire.decode(packet.payload, key)

    snapshot = asyncio.run(read())
    assert isinstance(snapshot, Snapshot)
    return snapshot


def converse(server, frames: list[bytes], vehicle: str) -> list[Receipt]:
    """Publish the frames as this vehicle, introduced by a status; gives the receipt to each."""
    status = Status(vehicle, "b", "online", -1, 0, 0, 0, "", SIGNER.public)

    async def talk():
        transport = Mqtt(host=server.broker.host, port=server.broker.port)
        got = []
        async with (
            transport.connect(vehicle) as link,
            link.subscribe(topics.receipt(FLEET, vehicle)) as receipts,
        ):
            introduction = wire.encode(status, SIGNER)
            await link.publish(topics.status(FLEET, vehicle, 1), introduction, retain=True)
            for frame in frames:
                await link.publish(topics.update(FLEET, vehicle, 1), frame)
                packet = await asyncio.wait_for(receipts.__anext__(), 20)
                packet.ack()
                got.append(wire.decode(packet.payload))
        return got

    return asyncio.run(talk())


def update(like, vehicle, sequence, base, *, signer=SIGNER, **fields) -> bytes:
    delta = np.random.default_rng(sequence).normal(size=like.size).astype(np.float32) * 1e-3
    defaults = {
        "layout": like.fingerprint,
        "codec": "int8",
        "body": decoder("int8", like).encode(delta),
    }
    return wire.encode(
        Update(
            vehicle=vehicle,
            boot="b",
            sequence=sequence,
            base_version=base,
            num_examples=8,
            local_steps=1,
            captured_from=0,
            captured_to=1,
            loss=1.0,
            **{**defaults, **fields},
        ),
        signer,
    )


def wait_until_served(server, version, patience_s=20.0):
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            card = httpx.get(f"{server.url}/v1/model", timeout=5).json()
            if card.get("model_version", -1) >= version:
                return card
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"version {version} was not served within {patience_s} s")


def test_a_picture_is_classified(server):
    answer = httpx.post(f"{server.url}/v1/classify", content=BODY)
    assert answer.status_code == 200
    assert answer.json()["label"] in world.CLASSES
    assert sum(answer.json()["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    bad = httpx.post(f"{server.url}/v1/classify", content=b"not a picture")
    assert (bad.status_code, "not a whole PNG or JPEG" in bad.json()["detail"]) == (400, True)


def test_bodies_that_stall_and_pictures_that_cost_deny_nobody(server):
    """Sixty senders stall in the middle of their bodies, and large pictures wait for each other."""
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n\x89PNG"
    costly = made.empty_png(5600, 5600, 1, 0)

    def ask():
        return httpx.post(f"{server.url}/v1/classify", content=costly, timeout=60).status_code

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(6) as askers:
        for _ in range(60):
            stalled = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            stalled.sendall(head)
        asked = [askers.submit(ask) for _ in range(6)]
        for path in ("/readyz", "/healthz"):
            assert httpx.get(f"{server.url}{path}", timeout=10).status_code == 200
            assert httpx.head(f"{server.url}{path}", timeout=10).content == b""
        for _ in range(5):
            answer = httpx.post(f"{server.url}/v1/classify", content=BODY, timeout=10)
            assert answer.status_code == 200
        assert {each.result() for each in asked} <= {200, 503}


def test_releases_swap_in_without_a_failed_request(server, layout):
    before = newest(server)
    seen, failed, done = set(), [], threading.Event()

    def ask():
        with httpx.Client() as http:
            while not done.is_set():
                answer = http.post(f"{server.url}/v1/classify", content=BODY)
                if answer.status_code != 200:
                    failed.append((answer.status_code, answer.text))
                else:
                    seen.add(answer.json()["model_version"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number in range(6):
            frames = [update(layout, "swap", number, before.version)]
            (receipt,) = converse(server, frames, "swap")
            assert (receipt.verdict, receipt.sequence) == ("accepted", number)
            wait_until_served(server, receipt.version)
    finally:
        time.sleep(0.3)
        done.set()
        thread.join()
    after = newest(server)
    assert after.version == before.version + 3
    assert failed == []
    assert after.version in seen
    assert len(seen) >= 2
    # What is served is what was published, to the bit.
    assert wait_until_served(server, after.version)["sha256"] == after.sha256.hex()
    assert digest(decoder(after.codec, layout).decode(after.body)) == after.sha256


def test_bad_updates_get_a_receipt_with_the_reason(server, layout):
    version = newest(server).version
    values = np.zeros(layout.size, "<f4")
    values[7] = np.nan
    frames = [
        update(layout, "bad", 0, version, layout=b"another1"),
        update(layout, "bad", 1, version, codec="float32", body=squeeze(values.tobytes(), 1)),
        update(layout, "bad", 2, version, body=b"\0corrupt"),
        update(layout, "bad", 3, version + 100),
        update(layout, "bad", 4, version),
        update(layout, "bad", 4, version),
    ]
    receipts = converse(server, frames, "bad")
    assert [(r.verdict, r.reason) for r in receipts] == [
        ("refused", "layout"),
        ("refused", "not_finite"),
        ("refused", "body"),
        ("refused", "future"),
        ("accepted", ""),
        ("duplicate", ""),
    ]
    details = [e["detail"] for e in server.events("refused") if e["vehicle"] == "bad"]
    assert f"value 7 of {layout.size} is nan" in details[1]


def test_updates_that_the_named_vehicle_did_not_sign_are_refused(server, layout):
    stranger = Signer(FLEET, Ed25519PrivateKey.generate())
    version = newest(server).version
    frames = [
        update(layout, "named", number, version, signer=signer)
        for number, signer in enumerate((SIGNER, None, stranger))
    ]
    receipts = converse(server, frames, "named")
    assert [(r.verdict, r.reason) for r in receipts] == [
        ("accepted", ""),
        ("refused", "signature"),
        ("refused", "signature"),
    ]
    assert (server.state / "keys" / "named.pub").read_text() == SIGNER.public_line("named") + "\n"


def test_noise_harms_nothing(server, layout):
    async def shout():
        transport = Mqtt(host=server.broker.host, port=server.broker.port)
        async with transport.connect("noisy") as link:
            await link.publish(topics.update(FLEET, "noisy", 1), b"\xff" * 1000)

    asyncio.run(shout())
    frames = [update(layout, "calm", 0, newest(server).version)]
    assert converse(server, frames, "calm")[0].verdict == "accepted"
    assert any(e["vehicle"] == "noisy" for e in server.events("malformed"))


def test_a_killed_replica_comes_back_with_the_newest_release(server):
    version = newest(server).version
    started = server.events("replica_started")
    os.kill(started[-1]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(server.events("replica_started")) == len(started):
        assert time.monotonic() < deadline, "no new replica after 60 s"
        time.sleep(0.2)
    wait_until_served(server, version, 60)
    assert httpx.post(f"{server.url}/v1/classify", content=BODY).status_code == 200


def fails(*arguments) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fleetfl", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = fails(
            "server", "run", "configs/server.yaml",
            "--set", f"server.http.port={port}", "--set", f"server.state={tmp_path}",
        )  # fmt: skip
    assert f"127.0.0.1:{port} cannot be listened on" in said


def listening(process: subprocess.Popen) -> set[tuple[str, int]]:
    """What the process and those it started listen at, of TCP."""
    tree = [psutil.Process(process.pid)]
    tree += tree[0].children(recursive=True)
    found = set()
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {
                tuple(c.laddr)
                for c in member.net_connections("tcp")
                if c.status == psutil.CONN_LISTEN
            }
    return found


def test_a_missing_adapter_file_is_named(tmp_path):
    said = fails(
        "server", "run", "configs/server.yaml",
        "--set", "server.initial=gone.safetensors", "--set", f"server.state={tmp_path}",
    )  # fmt: skip
    assert "gone.safetensors is missing" in said


def test_an_unreachable_broker_ends_the_server_with_its_address(tmp_path):
    with socket.socket() as bound:  # bound and not listening: nobody can answer
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        said = fails(
            "server", "run", "configs/server.yaml", "--set", f"transport.port={port}",
            "--set", f"server.state={tmp_path}", "--set", "server.http.port=0",
        )  # fmt: skip
    assert f"127.0.0.1:{port}" in said


def test_a_second_server_shares_no_port_and_a_plain_kill_ends_all_that_it_started(server, tmp_path):
    with running_server(tmp_path) as running:
        mine, others = listening(running.process), listening(server.process)
        assert {port for _, port in mine} & {port for _, port in others} == set()
        assert httpx.URL(running.url).port in {port for _, port in mine}
        main = psutil.Process(running.process.pid)
        children = main.children(recursive=True)
        assert len(children) > 3
        files = [path for path in running.state.rglob("*") if path.is_file()]
        assert [path for path in files if path.stat().st_mode & 0o077] == []
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        _, alive = psutil.wait_procs(children, timeout=20)
        assert [p.name() for p in alive] == []
        assert len(running.events("aggregator_stopped")) == 1  # after its last checkpoint
        log = running.log.read_text()
    assert "Traceback" not in log
