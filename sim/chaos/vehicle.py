"""A vehicle of a chaos run: the real agent, outbox and transport in a separate process.

Only sensor and trainer are fakes, so that it needs no torch. Its outbox and receipts stay on disk for the
ledger.
"""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pydantic import TypeAdapter

from fleetfl.codecs import AnyCodec, CodecConfig
from fleetfl.events.event_log import EventLog
from fleetfl.fleet_config import AnyTransport
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Receipt
from fleetfl.protocol.signing import OneKey, Signer
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.transport import Packet, QoS, Transport, TransportConfig, TransportError, Will
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining

LATE_S = 1.5
"""Longest delay of a repeated packet, in seconds."""


class Orders(msgspec.Struct, frozen=True):
    """Orders to a vehicle process, passed in a file that it reads again and again."""

    rests: bool = False
    """Whether the vehicle stops training and only delivers the updates in its outbox."""
    repeats: float = 0.0
    """Fraction of packets that are sent twice, 0 to 1."""
    clock_s: float = 0.0
    """Error of the vehicle's clock, in seconds; positive is ahead."""

    def write(self, folder: Path) -> None:
        partial = folder / "orders.partial"
        partial.write_bytes(msgspec.json.encode(self))
        partial.replace(folder / "orders.json")

    @classmethod
    def read(cls, folder: Path) -> "Orders":
        return msgspec.json.decode((folder / "orders.json").read_bytes(), type=cls)


class Settings(msgspec.Struct, frozen=True):
    """Inputs of a vehicle process, pickled to it."""

    fleet: str
    """Name of the fleet."""
    name: str
    """Name of the vehicle."""
    seed: int
    """Seed of the vehicle's agent."""
    folder: Path
    """Folder of the vehicle's outbox, receipts, orders and log."""
    transport: dict[str, Any]
    """Settings of the transport to the vehicle's proxy, as `transport`."""
    agent: dict[str, Any]
    """Settings of the agent, as `vehicle.agent`."""
    codec: dict[str, Any]
    """Settings of the update codec, as `vehicle.codec`."""
    initial: Path
    """Adapter file of the initial model."""
    server_key: Path
    """File of the server's public key."""


def run(settings: Settings) -> None:
    """Main function of the vehicle process; it runs until the process or its parent is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = os.open(settings.folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    asyncio.run(_live(settings))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


async def _live(settings: Settings) -> None:
    layout, _ = read_adapter(settings.initial)
    transport: TransportConfig = TypeAdapter(AnyTransport).validate_python(settings.transport)
    codec: CodecConfig = TypeAdapter(AnyCodec).validate_python(settings.codec)
    identity = Identity(
        settings.fleet,
        settings.name,
        boot=secrets.token_urlsafe(4),
        seed=settings.seed,
        signer=Signer.from_file(settings.fleet, settings.folder / "key.pem"),
    )
    outbox = Outbox(settings.folder / "outbox.db", watched=True)
    client_id = f"{settings.fleet}-{settings.name}"
    will = Will(identity.status_topic, identity.offline())
    async with transport.connect(
        client_id, clean_session=False, will=will, patience_s=float("inf")
    ) as link:
        receipts = EventLog(settings.folder / "receipts.jsonl")
        topic = topics.receipt(settings.fleet, settings.name)
        agent = Agent(
            Config.model_validate(settings.agent),
            identity,
            transport=Witness(link, topic, receipts, settings.folder),
            sensor=SensorAside(Nothing(settings.folder)),
            trainer=TrainerAside(Noise()),
            layout=layout,
            codec=codec,
            frames_per_update=8,
            outbox=outbox,
            server_key=OneKey(settings.fleet, settings.server_key),
        )
        await agent.run()


RESTING = "resting"
"""Name of a file in a vehicle's folder that says that it rests and no update is being trained."""


class Nothing:
    """Sensor that gives black 1 x 1 frames, and blocks while the vehicle is ordered to rest."""

    num_frames = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, count: int) -> Frames:
        while (orders := Orders.read(self.folder)).rests:
            (self.folder / RESTING).touch()
            time.sleep(0.1)
        now = time.time() + orders.clock_s
        images, labels = np.zeros((count, 1, 1, 3), np.uint8), np.zeros(count, np.int64)
        return Frames(images, labels, captured_from=now - 1, captured_to=now)

    def skip(self, count: int) -> None:
        pass


class Noise:
    """Trainer that gives random updates of standard deviation 0.001, determined by the seed."""

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        delta = np.random.default_rng(seed).normal(size=start.size) * 1e-3
        return LocalTraining(delta.astype(np.float32), len(frames.images), 1, 1.0)


class Witness:
    """Transport that records receipts as they arrive, and repeats packets when ordered to."""

    def __init__(self, link: Transport, topic: str, receipts: EventLog, folder: Path) -> None:
        self.link, self.topic, self.receipts, self.folder = link, topic, receipts, folder
        self.late: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        return self.link.is_connected

    @property
    def max_payload_bytes(self) -> int:
        return self.link.max_payload_bytes

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, timeout_s: float = 30.0
    ) -> None:
        await self.link.publish(topic, payload, retain=retain, timeout_s=timeout_s)
        if not retain and random.random() < Orders.read(self.folder).repeats:
            task = asyncio.create_task(self._again(topic, payload), name="witness.again")
            self.late.add(task)
            task.add_done_callback(self.late.discard)

    async def _again(self, topic: str, payload: bytes) -> None:
        await asyncio.sleep(random.uniform(0, LATE_S))
        with contextlib.suppress(TransportError):
            await self.link.publish(topic, payload)

    def subscribe(
        self, topic_filter: str, *, qos: QoS = 1
    ) -> AbstractAsyncContextManager[AsyncIterator[Packet]]:
        if topic_filter != self.topic:
            return self.link.subscribe(topic_filter, qos=qos)
        return self._noting(topic_filter, qos)

    @asynccontextmanager
    async def _noting(self, topic_filter: str, qos: QoS) -> AsyncIterator[AsyncIterator[Packet]]:
        async with self.link.subscribe(topic_filter, qos=qos) as packets:
            yield _Noting(packets, self.receipts)


class _Noting:
    def __init__(self, packets: AsyncIterator[Packet], receipts: EventLog) -> None:
        self.packets, self.receipts = packets, receipts

    def __aiter__(self) -> AsyncIterator[Packet]:
        return self

    async def __anext__(self) -> Packet:
        packet = await anext(self.packets)
        receipt = wire.decode(packet.payload)
        assert isinstance(receipt, Receipt)
        self.receipts.write(
            "receipt",
            boot=receipt.boot,
            sequence=receipt.sequence,
            verdict=receipt.verdict,
            reason=receipt.reason,
        )
        return packet
