"""A gateway on the memory broker, with a vehicle's link and a server that the test plays."""

import asyncio

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actors.gateway import Gateway
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Outcome
from fleetfl.events.event_log import EventLog, EventReader
from fleetfl.protocol import topics, wire
from fleetfl.protocol.signing import Signer
from fleetfl.releases.generations import order_of
from fleetfl.releases.versions import Published
from fleetfl.storage.journal import Journal
from fleetfl.transport import memory
from fleetfl.vectors import Layout

FLEET = "f"
LAYOUT = Layout((("w", (5,)),))


class Scene:
    """A gateway, a vehicle's link, and what `submit` is to answer."""

    def __init__(self, tmp_path, submit, *, max_payload_bytes=1_000_000, **identity):
        self.broker, self.submit = memory.Broker(), submit
        self.max_payload_bytes, self.identity = max_payload_bytes, identity
        self.path = tmp_path / "events.jsonl"
        self.journal = Journal(tmp_path / "journal.sqlite")
        self.published = Published(np.zeros(5, np.float32), LAYOUT, Int8(), generation="one")

    async def play(self, packets, *, max_in_flight=3, wait_s=0.05):
        """Publish (topic, frame) pairs; gives the receipts of v1."""

        async def announcement(than):
            while order_of(self.published) <= than:
                await asyncio.sleep(0.005)
            return self.published.whole(), self.published.later_than(than)

        async def outcome(row):
            (kept,) = self.journal.rows(row - 1, 1)
            return await self.submit(wire.decode(kept.frame), len(kept.frame))

        async with (
            self.broker.connect(
                "gateway", clean_session=False, max_payload_bytes=self.max_payload_bytes
            ) as link,
            self.broker.connect("v1") as vehicle,
            vehicle.subscribe(topics.receipt(FLEET, "v1")) as receipts,
        ):
            events = EventLog(self.path)
            self.gateway = gateway = Gateway(
                FLEET,
                0,
                transport=link,
                journal=self.journal,
                outcome=outcome,
                announcement=announcement,
                events=events,
                max_in_flight=max_in_flight,
                retry_s=0.01,
                **self.identity,
            )
            task = asyncio.create_task(gateway.run())
            await asyncio.sleep(0.02)
            for topic, frame in packets:
                await vehicle.publish(topic, frame)
            await asyncio.sleep(wait_s)
            while gateway.under_way and gateway.is_keeping:  # a busy machine needs longer
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            events.close()
            got = []
            while True:
                try:
                    packet = await asyncio.wait_for(receipts.__anext__(), 0.02)
                except asyncio.TimeoutError:
                    return got
                packet.ack()
                got.append(wire.decode(packet.payload))

    def events(self, kind):
        return [e for e in EventReader(self.path).read() if e["event"] == kind]


def update_topic(vehicle="v1"):
    return topics.update(FLEET, vehicle, 1)


async def accept(update, size):
    return Outcome("accepted", 5, 2)


def signer(number):
    return Signer(FLEET, Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))
