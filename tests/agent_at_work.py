"""An agent at work on the memory broker, and a server that the test plays."""

import asyncio
import contextlib
import dataclasses

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from fleetfl.codecs.float32 import Config as Float32
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import split
from fleetfl.protocol.messages import Receipt, Update
from fleetfl.protocol.signing import Signer
from fleetfl.releases.versions import Published
from fleetfl.vectors import Layout
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import Frames
from vehicle_agent.training import LocalTraining

LAYOUT = Layout((("w", (4,)),))
ME = Identity("f", "v1", "boot")
INT8 = Int8()


class Camera:
    num_frames = None

    def read(self, count):
        return Frames(np.zeros((count, 16, 16, 3), np.uint8), np.zeros(count, np.int64), 1.0, 2.0)


class HalfWayTo3:
    """A trainer whose delta is half of what is missing to 3."""

    def train(self, start, frames, *, seed):
        return LocalTraining((3 - start) / 2, len(frames.images), 2, 0.25)


async def now(call, *arguments, **keywords):
    """`work` that does not leave the loop."""
    await asyncio.sleep(0.001)
    return call(*arguments, **keywords)


def server_at(version, value=0.0, *, layout=LAYOUT, generation="one"):
    """A server whose releases, up to this version, end at `value`."""
    server = Published(np.zeros(layout.size, np.float32), layout, Float32(), generation=generation)
    for left in range(version - 1, -1, -1):
        server.advance(np.full(layout.size, value + left, np.float32))
    return server


async def announce(link, server, *, slots_since=-1, by=None, limit=1_000_000, **fields):
    """What a gateway publishes; `fields` replace those of the news."""
    whole = wire.encode(server.whole(), by)
    for index, chunk in enumerate(split(whole, limit)):
        await link.publish(topics.snapshot("f", index), chunk, retain=True)
    for release in server.since(slots_since):
        for index, chunk in enumerate(split(wire.encode(release, by), limit)):
            topic = topics.release_slot("f", release.version, index)
            await link.publish(topic, chunk, retain=True)
    news = wire.encode(replace(server.since(-1)[-1], **fields), by)
    if len(news) > limit:
        news = wire.encode(replace(server.since(-1)[-1], body=b""), by)
    await link.publish(topics.release("f"), news, retain=True)
    return len(whole), len(news)


@contextlib.asynccontextmanager
async def running(
    broker,
    outbox,
    *,
    agent=None,
    sensor=None,
    trainer=None,
    layout=LAYOUT,
    work=now,
    me=ME,
    server_key=None,
    max_payload_bytes=1_000_000,
    codec=INT8,
    error_feedback=0.9,
    sums=None,
    **settings,
):
    """The agent at work, and the server's link with what comes up on it."""
    async with (
        broker.connect("server") as server,
        broker.connect("v1", clean_session=False, max_payload_bytes=max_payload_bytes) as link,
        server.subscribe("fleetfl/1/f/up/#") as uplink,
    ):
        config = Config(**{"resend_s": 0.05, "status_s": 60, "max_waiting": 3, **settings})
        follower = agent.adoption.follower if agent else None
        agent = Agent(
            config,
            me,
            transport=link,
            sensor=SensorAside(sensor or Camera(), work),
            trainer=TrainerAside(trainer or HalfWayTo3(), sums, work=work),
            layout=layout,
            codec=codec,
            error_feedback=error_feedback,
            frames_per_update=6,
            outbox=outbox,
            server_key=server_key,
            follower=follower,
            work=work,
        )
        task = asyncio.create_task(agent.run())
        try:
            yield agent, server, uplink
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def next_update(uplink) -> Update:
    while True:
        packet = await asyncio.wait_for(uplink.__anext__(), 2)
        packet.ack()
        message = wire.decode(packet.payload)
        if isinstance(message, Update):
            return message


async def receive(server, update, verdict="accepted"):
    receipt = Receipt("v1", update.boot, update.sequence, verdict, "", 0, 1)
    await server.publish(topics.receipt("f", "v1"), wire.encode(receipt))


async def until(condition, patience_s=5.0):
    for _ in range(int(patience_s / 0.005)):
        await asyncio.sleep(0.005)
        if condition():
            return
    raise AssertionError("never came true")


def holds(agent, server):
    held = agent.adoption.held
    return held is not None and held.vector.tobytes() == server.vector.tobytes()


BIG = Layout((("w", (64, 32)),))


class Idle:
    def train(self, start, frames, *, seed):
        return LocalTraining(np.zeros_like(start), len(frames.images), 1, 0.5)


def big_server(generation="one"):
    start = np.random.default_rng(3).normal(size=BIG.size).astype(np.float32)
    return Published(start, BIG, Int8(), generation=generation)


def signer(number):
    return Signer("f", Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


SIGNED = dataclasses.replace(ME, signer=signer(1))
