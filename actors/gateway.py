"""The broker on one side, journal and aggregator on the other. Knows the wire format and nothing of models.

An update is verified, appended to the journal and only then acknowledged; its receipt goes out when the
aggregator has counted its row. It is given what it talks to -- a connected transport, a journal, `outcome`
and `announcement` -- so the cluster passes Ray calls and a test plain ones.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from actors.announcer import Announcement, Announcer
from actors.metrics import Metrics
from fleetfl import topics, wire
from fleetfl.chunks import Assembler
from fleetfl.coordinator import Outcome
from fleetfl.journal import Journal, JournalDamaged, JournalError, Place
from fleetfl.messages import SIGNATURE, Receipt, Snapshot, Status, Update
from fleetfl.roster import Roster
from fleetfl.tasks import together
from fleetfl.telemetry import EventLog
from fleetfl.transport import Packet, Transport, TransportError

log = logging.getLogger(__name__)

Judged = Callable[[int], Awaitable[Outcome]]
"""What became of the update in this row of the journal."""
Mend = Callable[[], Awaitable[None]]
"""Has a damaged journal repaired."""
Newer = Callable[[int], Awaitable[Snapshot]]
"""The newest version once it is past this one."""


class Gateway:
    """One partition of the fleet's uplink; the first one also announces releases.

    With `keys` it takes only what its vehicle has signed; with `signer` it signs what it says.
    """

    def __init__(
        self,
        fleet: str,
        partition: int,
        *,
        transport: Transport,
        journal: Journal,
        outcome: Judged,
        announcement: Announcement,
        events: EventLog,
        keys: wire.Verifier | None = None,
        signer: wire.Signer | None = None,
        max_in_flight: int = 128,
        retry_s: float = 1.0,
        look_s: float = 30.0,
        mend: Mend | None = None,
    ) -> None:
        self.fleet, self.partition = fleet, partition
        self.transport, self.journal, self.events = transport, journal, events
        self.outcome, self.mend = outcome, mend
        self.keys, self.signer, self.retry_s = keys, signer, retry_s
        self.is_keeping = True
        """The journal took the last update."""
        self.roster = Roster()
        """The partition's vehicles."""
        self.max_in_flight = max_in_flight
        self.assembler = Assembler()
        self.announcer = Announcer(
            fleet,
            transport=transport,
            announcement=announcement,
            events=events,
            signer=signer,
            look_s=look_s,
        )
        self.free = asyncio.Semaphore(max_in_flight)
        self.under_way: set[asyncio.Task[None]] = set()

    def measured_by(self, metrics: Metrics) -> None:
        """Have what it is shown by `metrics`."""
        for name, about, value in (
            ("in_flight_updates", "Updates under judgement.", lambda: len(self.under_way)),
            ("in_flight_limit", "More of them wait in the broker.", lambda: self.max_in_flight),
            ("journal_keeps", "0 while the journal takes no update.", lambda: self.is_keeping),
            ("broker_connected", "0 while the link is down.", lambda: self.transport.is_connected),
        ):
            metrics.gauge(f"fleetfl_{name}", about, value)

    async def run(self) -> None:
        """Until cancelled. Reads no further packet while `max_in_flight` are being judged."""
        if self.partition == 0:
            await together(uplink=self._listen(), releases=self.announcer.run())
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
            # The vehicle has no receipt and sends it again.
            log.error("an update was not answered", exc_info=bug)

    async def _take(self, packet: Packet) -> None:
        vehicle, leaf = topics.sender(packet.topic)
        update, frame = None, None
        try:
            frame = self.assembler.add(vehicle, packet.payload, asyncio.get_running_loop().time())
            if frame is not None:
                update = await self._believed(frame, vehicle, leaf, retained=packet.retained)
        except wire.WireError as noise:
            self.events.write("noise", vehicle=vehicle, leaf=leaf, detail=str(noise))
        if update is None or frame is None:
            # Also a chunk that waits for others: were they lost, no receipt would come and all come again.
            packet.ack()
            return
        place = await self._kept(update, frame)
        packet.ack()
        outcome = await self.outcome(place.row)
        if outcome.verdict == "accepted" and not place.is_new:
            outcome = replace(outcome, verdict="duplicate", released=False)
            self._note_repeat(update, outcome, len(frame))
        await self._answer(update, outcome)

    async def _kept(self, update: Update, frame: bytes) -> Place:
        """Its place on disk; until it has one it is neither acknowledged nor are more than so many read."""
        while True:
            try:
                place = await self.journal.append(update, frame)
            except JournalError as failed:
                if self.is_keeping:
                    log.error("updates are not kept nor acknowledged: %s", failed)
                    self.events.write("journal_failed", detail=str(failed))
                self.is_keeping = False
                if isinstance(failed, JournalDamaged) and self.mend is not None:
                    await self._mended(self.mend)
                await asyncio.sleep(self.retry_s)
                continue
            if not self.is_keeping:
                self.events.write("journal_mended")
            self.is_keeping = True
            return place

    async def _mended(self, mend: Mend) -> None:
        try:
            await mend()
        except Exception as failed:  # the aggregator's or Ray's: the next try asks again
            log.error("the journal is not repaired yet: %s", failed)

    async def _believed(
        self, frame: bytes, vehicle: str, leaf: str, *, retained: bool
    ) -> Update | None:
        """The frame's update, if it is one to be judged. Raises WireError for what cannot be answered."""
        forged: wire.SignatureError | None = None
        try:
            message = wire.decode(frame, self.keys)
        except wire.SignatureError as error:
            forged, message = error, error.message
            log.warning("not believed: %s", forged)
        if not isinstance(message, Status if leaf == "status" else Update):
            raise wire.WireError(f"a {type(message).__name__} on a topic for {leaf}")
        if message.vehicle != vehicle:
            raise wire.WireError(f"names {message.vehicle!r} on the topic of {vehicle!r}")
        if isinstance(message, Status):
            if forged is not None:
                raise forged
            self._note(message, retained=retained)
        elif forged is not None:
            await self._refuse(message, len(frame), str(forged))
        else:
            self.roster.hear(vehicle, at=time.time())
            return message
        return None

    def _note(self, status: Status, *, retained: bool) -> None:
        self.roster.note(status, at=time.time(), retained=retained)
        self.events.write(
            status.state,
            vehicle=status.vehicle,
            boot=status.boot,
            version=status.version,
            bytes_up=status.bytes_up,
            bytes_down=status.bytes_down,
            waiting=status.waiting,
            ends=status.ends,
            note=status.note,
        )

    def _note_repeat(self, update: Update, outcome: Outcome, frame_bytes: int) -> None:
        self.events.write(
            "duplicate",
            vehicle=update.vehicle,
            boot=update.boot,
            sequence=update.sequence,
            base=update.base_version,
            staleness=outcome.staleness,
            bytes=frame_bytes,
        )

    async def _refuse(self, update: Update, frame_bytes: int, why: str) -> None:
        """Tell the vehicle, which keeps the update, that its key is unknown here or not the known one."""
        self.events.write(
            "refused",
            vehicle=update.vehicle,
            boot=update.boot,
            sequence=update.sequence,
            base=update.base_version,
            staleness=0,
            bytes=frame_bytes,
            reason=SIGNATURE,
            detail=why,
        )
        await self._send(
            Receipt(update.vehicle, update.boot, update.sequence, "refused", SIGNATURE, 0, 0)
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
        await self._send(receipt)

    async def _send(self, receipt: Receipt) -> None:
        topic = topics.receipt(self.fleet, receipt.vehicle)
        try:
            await self.transport.publish(topic, wire.encode(receipt, self.signer))
        except TransportError as broken:
            # The vehicle sends the update again and gets "duplicate": a receipt as good.
            log.warning("receipt not sent: %s", broken)
