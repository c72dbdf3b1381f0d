"""SIGKILL in the middle of updates, in a real cluster: every receipt comes, every update counts once."""

import asyncio
import contextlib
import logging
import os
import signal
import time

import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.config import ServerConfig
from fleetfl.codecs import decoder
from fleetfl.config import load
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Snapshot, Status, Update
from fleetfl.protocol.signing import Signer
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.storage.journal import Journal
from fleetfl.transport.mqtt import Config as Mqtt
from tests.cluster.conftest import ROOT, running_server

pytestmark = pytest.mark.cluster
log = logging.getLogger(__name__)
FLEET = "depot-7"
SIGNER = Signer(FLEET, Ed25519PrivateKey.from_private_bytes(bytes(32)))
GOAL = 5
RUN = "FLEETFL_TEST_RUN"
"""In the environment of all that a test starts."""


class Vehicle:
    """Sends numbered updates and sends them again until each has a receipt, as an outbox does."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.receipts = {}
        """Sequence -> verdicts, in the order in which they came."""
        self.arrived_at = []
        """When a first receipt came, on time.time()."""

    async def drive(self, frames, *, every_s, patience_s=90.0):
        transport = Mqtt(host=self.server.broker.host, port=self.server.broker.port)
        async with (
            transport.connect(self.name) as link,
            link.subscribe(topics.receipt(FLEET, self.name)) as receipts,
        ):
            status = Status(self.name, "b", "online", -1, 0, 0, 0, "", SIGNER.public)
            topic = topics.status(FLEET, self.name, 1)
            await link.publish(topic, wire.encode(status, SIGNER), retain=True)
            reading = asyncio.create_task(self._read(receipts))
            try:
                await asyncio.wait_for(self._send(link, frames, every_s), patience_s)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, receipts):
        async for packet in receipts:
            packet.ack()
            receipt = wire.decode(packet.payload)
            if receipt.sequence not in self.receipts:
                self.arrived_at.append(time.time())
            self.receipts.setdefault(receipt.sequence, []).append(receipt.verdict)

    async def _send(self, link, frames, every_s):
        topic = topics.update(FLEET, self.name, 1)
        waiting = dict(enumerate(frames))
        while waiting:
            for frame in waiting.values():
                await link.publish(topic, frame)
                await asyncio.sleep(every_s)
            await asyncio.sleep(2.0)
            waiting = {n: frame for n, frame in waiting.items() if n not in self.receipts}


def frames(layout, vehicle, count):
    codec, rng = decoder("int8", layout), np.random.default_rng(1)
    for sequence in range(count):
        delta = rng.normal(size=layout.size).astype(np.float32) * 1e-3
        yield wire.encode(
            Update(
                vehicle=vehicle,
                boot="b",
                sequence=sequence,
                base_version=0,
                layout=layout.fingerprint,
                num_examples=8,
                local_steps=1,
                captured_from=0,
                captured_to=1,
                loss=1.0,
                codec="int8",
                body=codec.encode(delta),
            ),
            SIGNER,
        )


async def killing(server, event, times, every_s):
    """SIGKILL the newest process that `event` tells of, so many times; gives when."""
    killed = []
    for _ in range(times):
        await asyncio.sleep(every_s)
        pid = server.events(event)[-1]["pid"]
        killed.append(time.time())
        os.kill(pid, signal.SIGKILL)
        while server.events(event)[-1]["pid"] == pid:
            await asyncio.sleep(0.02)
            assert time.time() < killed[-1] + 60, f"no {event} within 60 s"
    return killed


def without_faults(server):
    """What a Coordinator comes to that counts the journal's rows one after the other."""
    settings = [f"server.state={server.state}", f"server.aggregator.goal={GOAL}"]
    config = load(ROOT / "configs/server.yaml", "server", ServerConfig, settings)
    layout, params = read_adapter(server.state / "initial.safetensors")
    coordinator = Coordinator(
        params,
        layout,
        config.aggregator.build(layout.size),
        config.optimizer.build(layout.size),
        release_codec=config.release,
    )
    with contextlib.closing(Journal(server.state / "journal" / "updates.sqlite")) as journal:
        for kept in journal.rows(0, 1_000_000):
            message = wire.decode(kept.frame)
            assert isinstance(message, Update)
            assert coordinator.submit(message).verdict == "accepted"
    return coordinator.published


def retained(server) -> Snapshot:
    async def read():
        transport = Mqtt(host=server.broker.host, port=server.broker.port)
        async with (
            transport.connect("reader") as link,
            link.subscribe(topics.snapshot(FLEET, 0)) as packets,
        ):
            return wire.decode((await asyncio.wait_for(packets.__anext__(), 10)).payload)

    snapshot = asyncio.run(read())
    assert isinstance(snapshot, Snapshot)
    return snapshot


def served(server, version, patience_s=20.0):
    """The retained snapshot, once it is of this version."""
    deadline = time.monotonic() + patience_s
    while (snapshot := retained(server)).version < version:
        assert time.monotonic() < deadline, f"version {snapshot.version}, expected {version}"
        time.sleep(0.2)
    return snapshot


def recovery_s(server, event, killed, vehicle):
    """Of each kill: seconds to the actor's start, which are Ray's, and from there to a first receipt.

    None for that where all had their receipts before.
    """
    seconds = []
    for at in killed:
        up = next(e for e in server.events(event) if e["time"] > at)
        start = up["time"] - up.get("seconds", 0.0)
        answered = min((t for t in vehicle.arrived_at if t >= start), default=None)
        ours = None if answered is None else round(answered - start, 2)
        seconds.append({"ray": round(start - at, 2), "ours": ours})
    return seconds


class Lives:
    """A server that is killed whole and started again on its folder; `server` is the one that runs."""

    def __init__(self, folder, lives):
        self.folder, self.lives = folder, lives
        self.begin()

    def begin(self):
        goal = f"server.aggregator.goal={GOAL}"
        server = running_server(self.folder, goal, has_endpoint=False)
        self.server = self.lives.enter_context(server)

    def begin_again(self):
        kill_all_of(str(self.folder))
        self.lives.close()
        self.begin()


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery")
    with pytest.MonkeyPatch.context() as patched, contextlib.ExitStack() as stack:
        patched.setenv(RUN, str(folder))
        yield Lives(folder, stack)


def counted(server, vehicle):
    """Sequences of a vehicle's updates that were counted."""
    return [e["sequence"] for e in server.events("accepted") if e["vehicle"] == vehicle]


def require_same_bits_without_faults(server):
    """Gives what is served: the version of all that was counted."""
    version = len(server.events("accepted")) // GOAL
    expected, found = without_faults(server), served(server, version)
    assert found.version == expected.version == version
    assert found.sha256.hex() == expected.sha256.hex()
    assert {e["generation"] for e in server.events("aggregator_started")} == {found.generation}
    assert server.process.poll() is None
    return found


@pytest.mark.parametrize("event", ["aggregator_started", "gateway_started"])
def test_a_killed_actor_loses_nothing_and_counts_nothing_twice(lives, model_config, event):
    """60 updates, some on their way at each of 3 kills; then the same rows without any fault."""
    server, name = lives.server, event.partition("_")[0]
    vehicle = Vehicle(server, name)
    sent = list(frames(model_config.build().layout, name, 60))

    async def scenario():
        sending = vehicle.drive(sent, every_s=0.2)
        _, killed = await asyncio.gather(sending, killing(server, event, 3, 1.5))
        return killed

    killed = asyncio.run(scenario())
    assert set(vehicle.receipts) == set(range(60))
    verdicts = {verdict for all_of in vehicle.receipts.values() for verdict in all_of}
    assert verdicts <= {"accepted", "duplicate"}
    assert sorted(counted(server, name)) == list(range(60))
    require_same_bits_without_faults(server)
    # A figure, not a test (docs/results/recovery.md); shown by --log-cli-level=INFO
    log.info("%s: %s", event, recovery_s(server, event, killed, vehicle))


def kill_all_of(run):
    """SIGKILL to whatever was started in this run, wherever it hangs in the tree, but for the broker."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(RUN) == run and process.name() != "nats-server":
                process.kill()


def test_a_server_that_is_started_again_goes_on(lives, model_config):
    """Killed whole, with all that it started; the second one has the generation and version of the first.

    8 updates and then 4: of those before the kill, 3 at least are not in any version yet.
    """
    sent = list(frames(model_config.build().layout, "v1", 12))
    asyncio.run(Vehicle(lives.server, "v1").drive(sent[:8], every_s=0))
    before = require_same_bits_without_faults(lives.server)
    lives.begin_again()
    vehicle = Vehicle(lives.server, "v1")
    asyncio.run(vehicle.drive(sent, every_s=0))
    assert {verdict for n in range(8) for verdict in vehicle.receipts[n]} == {"duplicate"}
    assert sorted(counted(lives.server, "v1")) == list(range(12))
    found = require_same_bits_without_faults(lives.server)
    assert (found.generation, found.version) == (before.generation, before.version + 1)
