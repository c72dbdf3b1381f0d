"""A slow link that carries much both ways: does all get through, and how late are heartbeats?

Claim: at 60 KB/s with a keepalive of 60 s, a snapshot of 1 MB down and an update of 250 KB up get through,
while no heartbeat comes more than 1.5 s late.

Run: python benchmarks/link.py [--rate 60000] [--keepalive 60] [--packet 61440] [--json FILE]

A real agent behind the proxy of `sim/chaos/tcp_proxy.py`, a real nats-server or Mosquitto, and a server that
answers. The update waits in the outbox when the vehicle connects, so both go at once. Its status every 2 s is
the heartbeat: late is from when it is due to when the server has it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors.retained_publisher import RetainedPublisher
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import Assembler
from fleetfl.protocol.messages import Receipt, Status, Update
from fleetfl.releases.versions import Published
from fleetfl.transport import Packet
from fleetfl.transport.mqtt import Config as Mqtt
from fleetfl.vectors import Layout
from sim.chaos.tcp_proxy import proxy
from sim.processes.brokers import Broker, mosquitto, nats_server
from vehicle_agent.agent import Agent, Config, Identity
from vehicle_agent.outbox import Outbox
from vehicle_agent.ports import SensorAside, TrainerAside
from vehicle_agent.sensors import Frames, SensorError
from vehicle_agent.training import LocalTraining

LAYOUT = Layout((("w", (550, 500)),))
"""1 MB as a snapshot, 260 KB as int8."""
STATUS_S = 2.0
PATIENCE_S = 180.0
MOST_LATE_S = 1.5


class Resting:
    """A camera without frames, and a trainer that is never asked."""

    num_frames = None

    def read(self, count: int) -> Frames:
        raise SensorError("no frames")

    def train(self, start: np.ndarray, frames: Frames, *, seed: int) -> LocalTraining:
        raise NotImplementedError


@dataclass
class Heard:
    """What came to the server, and when."""

    statuses: list[float] = field(default_factory=list)
    update_s: float = float("nan")

    def late_s(self, until: float) -> list[float]:
        """Of each status that was due by then: the k-th one is due k periods after the first."""
        return [
            max(0.0, at - (self.statuses[0] + k * STATUS_S))
            for k, at in enumerate(self.statuses)
            if at <= until
        ]


async def server(heard: Heard, link: Any) -> None:
    """Answers updates, notes statuses."""
    assembler = Assembler()
    async with link.subscribe(topics.uplink("f", 0)) as packets:
        async for packet in packets:
            packet.ack()
            await take(heard, link, assembler, packet)


async def take(heard: Heard, link: Any, assembler: Assembler, packet: Packet) -> None:
    frame = assembler.add("v1", packet.payload, time.monotonic())
    message = frame and wire.decode(frame)
    if isinstance(message, Status) and message.state == "online":
        heard.statuses.append(time.monotonic())
    elif isinstance(message, Update):
        heard.update_s = time.monotonic()
        receipt = Receipt("v1", message.boot, message.sequence, "accepted", "", 0, 0)
        await link.publish(topics.receipt("f", "v1"), wire.encode(receipt))


def waiting_update() -> Update:
    body = (
        Int8().build(LAYOUT).encode(np.random.default_rng(1).normal(size=LAYOUT.size).astype("f4"))
    )
    return Update(
        vehicle="v1",
        boot="boot",
        sequence=0,
        base_version=0,
        layout=LAYOUT.fingerprint,
        num_examples=1,
        local_steps=1,
        captured_from=0,
        captured_to=1,
        loss=1.0,
        codec="int8",
        body=body,
    )


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measured(broker: Broker, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    start = np.random.default_rng(0).normal(size=LAYOUT.size).astype(np.float32)
    published = Published(start, LAYOUT, Int8(), generation="one")
    outbox = Outbox(folder / "outbox.db")
    update = waiting_update()
    frame = wire.encode(update)
    outbox.put(update, frame)  # of the version that the vehicle is about to get
    snapshot = wire.encode(published.whole())
    with proxy(broker.host, broker.port) as link:
        link.set(up_bytes_per_s=args.rate, down_bytes_per_s=args.rate, delay_s=0.03)
        near = Mqtt(port=broker.port)
        far = Mqtt(port=link.port, keepalive_s=args.keepalive, max_payload_bytes=args.packet)
        async with near.connect("server") as up, far.connect("v1", clean_session=False) as down:
            retained = RetainedPublisher(up)
            await retained.put(functools.partial(topics.snapshot, "f"), snapshot)
            await up.publish(topics.release("f"), wire.encode(published.since(-1)[-1]), retain=True)
            agent = Agent(
                Config(status_s=STATUS_S, resend_s=60.0, fetch_s=120.0),
                Identity("f", "v1", "boot"),
                transport=down,
                sensor=SensorAside(Resting()),
                trainer=TrainerAside(Resting()),
                layout=LAYOUT,
                codec=Int8(),
                frames_per_update=1,
                outbox=outbox,
            )
            heard = Heard()
            async with running(server(heard, up)):
                await asyncio.sleep(0.5)
                began_s = time.monotonic()
                async with running(agent.run()):
                    end = began_s + PATIENCE_S
                    while time.monotonic() < end and (len(outbox) or agent.adoption.held is None):
                        await asyncio.sleep(0.05)
                    done_s = time.monotonic()
                    await asyncio.sleep(2 * STATUS_S)
    held = agent.adoption.held
    return {
        "snapshot_bytes": len(snapshot),
        "update_bytes": len(frame),
        "got_through": not len(outbox) and held is not None,
        "all_s": done_s - began_s,
        "update_s": heard.update_s - began_s,
        "sent_bytes": agent.delivery.num_bytes,
        "heartbeats": len(heard.statuses),
        "most_late_s": max(heard.late_s(done_s), default=float("nan")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=60_000, help="bytes per second, each way")
    parser.add_argument("--keepalive", type=int, default=60, help="seconds")
    parser.add_argument("--packet", type=int, default=61_440, help="transport.max_payload_bytes")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    figures = {}
    for name, start in (("nats", nats_server), ("mosquitto", mosquitto)):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            broker = stack.enter_context(start(folder / "broker"))
            figures[name] = found = asyncio.run(measured(broker, folder, args))
        verdict = found["got_through"] and found["most_late_s"] <= MOST_LATE_S
        print(
            f"{name}: {found['snapshot_bytes']:,} bytes down and {found['update_bytes']:,} up "
            f"{'got' if found['got_through'] else 'DID NOT GET'} through in {found['all_s']:.1f} s "
            f"(update {found['update_s']:.1f} s); {found['heartbeats']} heartbeats, the latest "
            f"{found['most_late_s']:.2f} s late: {'as claimed' if verdict else 'NOT as claimed'}"
        )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
