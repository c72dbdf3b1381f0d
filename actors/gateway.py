"""The broker on one side, the aggregator on the other. Knows the wire format and nothing of models.

It is given what it talks to -- a connected transport, `submit` and `newer` -- so the cluster passes
Ray calls and a test plain ones.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fleetfl import topics, wire
from fleetfl.coordinator import Outcome
from fleetfl.messages import Receipt, Release, Status, Update
from fleetfl.tasks import together
from fleetfl.telemetry import EventLog
from fleetfl.transport import Packet, Transport, TransportError

log = logging.getLogger(__name__)

Submit = Callable[[Update, int], Awaitable[Outcome]]
Newer = Callable[[int], Awaitable[Release]]
"""The newest release once it is past this version."""


class Gateway:
    """One partition of the fleet's uplink; the first one also announces releases."""

    def __init__(
        self,
        fleet: str,
        partition: int,
        *,
        transport: Transport,
        submit: Submit,
        newer: Newer,
        events: EventLog,
        max_in_flight: int = 32,
    ) -> None:
        self.fleet, self.partition = fleet, partition
        self.transport, self.submit, self.newer, self.events = transport, submit, newer, events
        self.free = asyncio.Semaphore(max_in_flight)
        self.under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled. Reads no further packet while `max_in_flight` are being judged."""
        if self.partition == 0:
            await together(uplink=self._listen(), releases=self._announce())
        else:
            await self._listen()

    async def _listen(self) -> None:
        async with self.transport.subscribe(topics.uplink(self.fleet, self.partition)) as packets:
            async for packet in packets:
                await self.free.acquire()
                task = asyncio.create_task(self._take(packet), name="gateway.take")
                self.under_way.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        self.free.release()
        if not task.cancelled() and (bug := task.exception()) is not None:
            # Not acknowledged: the broker or the vehicle sends it again.
            log.error("an update was not judged", exc_info=bug)

    async def _take(self, packet: Packet) -> None:
        vehicle, leaf = topics.sender(packet.topic)
        try:
            message = wire.decode(packet.payload)
            if not isinstance(message, Status if leaf == "status" else Update):
                raise wire.WireError(f"a {type(message).__name__} on a topic for {leaf}")
            if message.vehicle != vehicle:
                raise wire.WireError(f"names {message.vehicle!r} on the topic of {vehicle!r}")
        except wire.WireError as noise:
            self.events.write("noise", vehicle=vehicle, leaf=leaf, detail=str(noise))
            packet.ack()
            return
        if isinstance(message, Status):
            self._note(message)
        elif isinstance(message, Update):
            outcome = await self.submit(message, len(packet.payload))
            await self._answer(message, outcome)
        packet.ack()

    def _note(self, status: Status) -> None:
        self.events.write(
            status.state,
            vehicle=status.vehicle,
            boot=status.boot,
            version=status.version,
            bytes_up=status.bytes_up,
            bytes_down=status.bytes_down,
            waiting=status.waiting,
            note=status.note,
        )

    async def _answer(self, update: Update, outcome: Outcome) -> None:
        receipt = Receipt(
            vehicle=update.vehicle,
            boot=update.boot,
            sequence=update.sequence,
            verdict=outcome.verdict,
            reason=outcome.reason.value if outcome.reason else "",
            staleness=outcome.staleness,
            version=outcome.version,
        )
        topic = topics.receipt(self.fleet, update.vehicle)
        try:
            await self.transport.publish(topic, wire.encode(receipt))
        except TransportError as broken:
            # The vehicle sends the update again and gets "duplicate": a receipt as good.
            log.warning("receipt not sent: %s", broken)

    async def _announce(self) -> None:
        version = -1
        while True:
            release = await self.newer(version)
            frame = wire.encode(release)
            try:
                await self.transport.publish(topics.release(self.fleet), frame, retain=True)
            except TransportError as broken:
                log.warning("release %d not announced yet: %s", release.version, broken)
                continue
            version = release.version
            self.events.write("announced", version=version, bytes=len(frame))
