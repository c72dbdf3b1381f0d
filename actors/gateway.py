"""The broker on one side, journal and aggregator on the other. Knows the wire format and nothing of models.

An update is verified, appended to the journal and only then acknowledged; its receipt goes out when the
aggregator has counted its row. It is given what it talks to -- a connected transport, a journal, `outcome`
and `announcement` -- so the cluster passes Ray calls and a test plain ones.
"""

import asyncio
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from actors.announcer import Announcement, Announcer
from actors.monitoring.metrics import Metrics
from actors.room import Room
from actors.roster import StatusDiary, VehicleDirectory
from fleetfl.coordination.coordinator import Outcome
from fleetfl.defences.malformed import MalformedPackets
from fleetfl.defences.rate_limits import Config as LimitsConfig
from fleetfl.defences.rate_limits import Limits, TokenBucket
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import MAGIC as CHUNK_MAGIC
from fleetfl.protocol.chunks import Assembler
from fleetfl.protocol.log_keys import UNKNOWN_BASE, log_keys
from fleetfl.protocol.messages import (
    FORMAT,
    MAX_DETAIL,
    SIGNATURE,
    VEHICLE_PATTERN,
    Receipt,
    Snapshot,
    Status,
    Update,
    fitting,
)
from fleetfl.protocol.signing import Signer, for_the_named
from fleetfl.releases.generations import Order
from fleetfl.storage.journal import Journal, JournalDamaged, JournalError, Offset
from fleetfl.task_group import together
from fleetfl.transport import Packet, Transport, TransportError

log = logging.getLogger(__name__)

VEHICLE = re.compile(VEHICLE_PATTERN)
REFUSALS_PER_S = 20

Judged = Callable[[int], Awaitable[Outcome]]
"""What became of the update in this row of the journal."""
Repair = Callable[[], Awaitable[None]]
"""Has a damaged journal repaired."""
WaitForVersion = Callable[[Order], Awaitable[Snapshot]]
"""The newest version, once it stands behind this place."""


class Gateway:
    """One partition of the fleet's uplink; the first one also announces releases.

    With `keys` it takes only what its vehicle has signed; with `signer` it signs what it says. Whatever
    comes, all of it is acknowledged but what the journal could not keep.
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
        signer: Signer | None = None,
        max_in_flight: int = 128,
        max_in_flight_bytes: int = 64 * 2**20,
        max_frame_bytes: int = wire.MAX_FRAME_BYTES,
        limits: LimitsConfig | None = None,
        retry_s: float = 1.0,
        look_s: float = 30.0,
        repair: Repair | None = None,
    ) -> None:
        self.fleet, self.partition = fleet, partition
        self.transport, self.journal, self.events = transport, journal, events
        self.outcome, self.repair = outcome, repair
        self.keys, self.signer, self.retry_s = keys, signer, retry_s
        self.is_keeping = True
        """The journal took the last update."""
        self.statuses = StatusDiary(events.bounds.status_s if events.bounds else 0.0)
        self.roster = VehicleDirectory()
        """The partition's vehicles."""
        self.max_in_flight, self.max_frame_bytes = max_in_flight, max_frame_bytes
        self.assembler = Assembler(max_frame_bytes=max_frame_bytes)
        self.announcer = Announcer(
            fleet,
            transport=transport,
            announcement=announcement,
            events=events,
            signer=signer,
            look_s=look_s,
        )
        self.room = Room(max_in_flight, max_in_flight_bytes)
        self.limits = None if limits is None else Limits(limits)
        self.malformed = MalformedPackets()
        self.refusals = TokenBucket(REFUSALS_PER_S, 10 * REFUSALS_PER_S)
        """Receipts for what was not read, or not believed."""
        self.under_way: set[asyncio.Task[None]] = set()

    def measured_by(self, metrics: Metrics) -> None:
        """Have what it is shown by `metrics`."""
        for name, about, value in (
            ("in_flight_updates", "Updates under judgement.", lambda: len(self.under_way)),
            ("in_flight_limit", "More of them wait in the broker.", lambda: self.max_in_flight),
            ("in_flight_bytes", "Frames under judgement.", lambda: self.room.num_bytes),
            (
                "malformed_packets",
                "Packets since the start that were no message of the vehicle on whose topic they came.",
                lambda: self.malformed.total,
            ),
            (
                "limited_packets",
                "Packets since the start that were not read: `server.limits`.",
                lambda: 0 if self.limits is None else self.limits.num_passed_over,
            ),
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
        clock = asyncio.get_running_loop().time
        async with self.transport.subscribe(topics.uplink(self.fleet, self.partition)) as packets:
            async for packet in packets:
                if self.limits is not None and (wait_s := self.limits.wait_s(clock())) > 0:
                    await asyncio.sleep(wait_s)
                arrived = self._arrived(packet, clock())
                if arrived is None:
                    # Also a chunk that waits for others: were they lost, no receipt would come and all
                    # come again.
                    packet.ack()
                    await asyncio.sleep(0)  # a flood of such leaves the others their turn
                    continue
                await self.room.take(len(arrived.frame))
                task = asyncio.create_task(self._take(arrived), name="gateway.take")
                self.under_way.add(task)
                task.add_done_callback(functools.partial(self._done, num_bytes=len(arrived.frame)))

    def _done(self, task: asyncio.Task[None], *, num_bytes: int) -> None:
        self.under_way.discard(task)
        self.room.give(num_bytes)
        if not task.cancelled() and (bug := task.exception()) is not None:
            # The vehicle has no receipt and sends it again.
            log.error("an update was not answered", exc_info=bug)

    def _arrived(self, packet: Packet, now_s: float) -> "_Arrived | None":
        """The whole frame that this packet is or completes, if its sender is one that can be answered."""
        sender = leaf = ""
        try:
            sender, leaf = topics.sender(packet.topic)
            if not VEHICLE.fullmatch(sender):
                raise wire.WireError(f"a topic of {sender[:80]!r}, which is no vehicle's name")
            is_chunk = packet.payload[:4] == CHUNK_MAGIC
            if self.limits is not None and not self.limits.takes(sender, now_s, is_chunk=is_chunk):
                return None
            frame = self.assembler.add(sender, packet.payload, now_s)
        except Exception as odd:  # whatever came: the others' packets are behind it
            self._note_malformed(sender, leaf, odd)
            return None
        return None if frame is None else _Arrived(packet, sender, leaf, frame)

    def _note_malformed(self, sender: str, leaf: str, why: Exception) -> None:
        """What nobody can be answered for."""
        said = self.malformed.count(sender[:64], asyncio.get_running_loop().time())
        if not isinstance(why, wire.WireError):
            log.error("a packet of %r was not read", sender[:64], exc_info=why)
        if said is not None:
            detail = str(why) or type(why).__name__
            self.events.write(
                "malformed", vehicle=sender[:64], leaf=leaf[:64], detail=detail[:MAX_DETAIL], **said
            )

    async def _take(self, arrived: "_Arrived") -> None:
        update = None
        try:
            update = await self._believed(arrived)
        except Exception as odd:  # as above
            self._note_malformed(arrived.sender, arrived.leaf, odd)
        if update is None:
            arrived.packet.ack()
            return
        try:
            place = await self._kept(update, arrived.frame)
        except Exception as odd:  # nothing that the disk's return would change
            self._note_malformed(arrived.sender, arrived.leaf, odd)
            arrived.packet.ack()
            return
        arrived.packet.ack()
        try:
            outcome = await self.outcome(place.row)
        except Exception:  # the vehicle has no receipt and sends it again
            log.exception("update not answered %s", log_keys(update))
            return
        if outcome.verdict == "accepted" and not place.is_new:
            outcome = replace(outcome, verdict="duplicate", released=False)
            self._note_repeat(update, outcome, len(arrived.frame))
        await self._answer(update, outcome)

    async def _kept(self, update: Update, frame: bytes) -> Offset:
        """Its place on disk; until it has one it is neither acknowledged nor are more than so many read."""
        while True:
            try:
                place = await self.journal.append(update, frame)
            except JournalError as failed:
                if self.is_keeping:
                    log.error(
                        "updates are not kept nor acknowledged, from %s on: %s",
                        log_keys(update),
                        failed,
                    )
                    self.events.write("journal_failed", detail=str(failed))
                self.is_keeping = False
                if isinstance(failed, JournalDamaged) and self.repair is not None:
                    await self._repaired(self.repair)
                await asyncio.sleep(self.retry_s)
                continue
            if not self.is_keeping:
                self.events.write("journal_resumed")
            self.is_keeping = True
            return place

    async def _repaired(self, repair: Repair) -> None:
        try:
            await repair()
        except Exception as failed:  # the aggregator's or Ray's: the next try asks again
            log.error("the journal is not repaired yet: %s", failed)

    async def _believed(self, arrived: "_Arrived") -> Update | None:
        """The frame's update, if it is one to be judged. Raises WireError for what cannot be answered."""
        if arrived.leaf == topics.PROOF:
            await self._weigh(arrived.frame)
            return None
        sender, is_status = arrived.sender, arrived.leaf == "status"
        try:
            message = wire.decode(arrived.frame, self.keys, sender=sender)
            if len(arrived.frame) > self.max_frame_bytes:
                raise wire.UnreadableError(
                    f"frame of {len(arrived.frame)} bytes, expected at most {self.max_frame_bytes} "
                    "for the layout of this fleet",
                    wire.named(message),
                )
        except wire.SignatureError as forged:
            self.roster.refuse(sender, str(forged))
            named = _answerable(forged.named, arrived, forged)
            await self._refuse(named, len(arrived.frame), SIGNATURE, str(forged))
            return None
        except wire.UnreadableError as unreadable:
            named = _answerable(unreadable.named, arrived, unreadable)
            await self._refuse(named, len(arrived.frame), FORMAT, str(unreadable))
            return None
        if not isinstance(message, Status if is_status else Update):
            raise wire.WireError(f"a {type(message).__name__} on a topic for {arrived.leaf}")
        self.roster.believe(sender)
        if isinstance(message, Status):
            self._note(message, retained=arrived.packet.retained)
            return None
        self.roster.hear(sender, at=time.time())
        return message

    async def _weigh(self, frame: bytes) -> None:
        """A vehicle was offered an older release than this one. Raises WireError unless it is ours."""
        news = self.announcer.ours(frame)
        if news is None:
            raise wire.WireError("a proof that this server's key has not signed")
        await self.announcer.outrank(news)

    def _note(self, status: Status, *, retained: bool) -> None:
        now = time.time()
        self.roster.note(status, at=now, retained=retained)
        if not self.statuses.is_due(status, at=now):
            return
        self.events.write(
            status.state,
            vehicle=status.vehicle,
            boot=status.boot,
            version=status.version,
            bytes_up=status.bytes_up,
            bytes_down=status.bytes_down,
            waiting=status.waiting,
            outcomes=status.outcomes,
            note=status.note,
        )

    def _note_repeat(self, update: Update, outcome: Outcome, frame_bytes: int) -> None:
        log.info("duplicate %s staleness=%d", log_keys(update), outcome.staleness)
        self.events.write(
            "duplicate",
            vehicle=update.vehicle,
            boot=update.boot,
            sequence=update.sequence,
            base=update.base_version,
            staleness=outcome.staleness,
            bytes=frame_bytes,
        )

    async def _refuse(self, named: wire.Named, num_bytes: int, reason: str, why: str) -> None:
        """Tell a vehicle that its update cannot be read, or that its key is not the known one."""
        now_s = asyncio.get_running_loop().time()
        if not self.refusals.takes(now_s):
            # Strangers send these as fast as they like, and each would cost a signature and a line.
            self.malformed.total += 1
            return
        log.warning("refused (%s) %s: %s", reason, log_keys(named), why)
        self.events.write(
            "refused",
            vehicle=named.vehicle,
            boot=named.boot,
            sequence=named.sequence,
            base=-1,
            staleness=0,
            bytes=num_bytes,
            reason=reason,
            detail=why[:MAX_DETAIL],
        )
        name = (named.vehicle, named.boot, named.sequence)
        # The server's paths are for whoever runs it.
        detail = fitting(for_the_named(why) if reason == SIGNATURE else why, MAX_DETAIL)
        await self._send(Receipt(*name, "refused", reason, 0, 0, detail))

    async def _answer(self, update: Update, outcome: Outcome) -> None:
        receipt = Receipt(
            vehicle=update.vehicle,
            boot=update.boot,
            sequence=update.sequence,
            verdict=outcome.verdict,
            reason=outcome.reason.value if outcome.reason else "",
            staleness=outcome.staleness,
            version=outcome.version,
            detail=fitting(outcome.detail, MAX_DETAIL),
        )
        await self._send(receipt, update.base_version)

    async def _send(self, receipt: Receipt, base: int = UNKNOWN_BASE) -> None:
        topic = topics.receipt(self.fleet, receipt.vehicle)
        try:
            await self.transport.publish(topic, wire.encode(receipt, self.signer))
        except (TransportError, wire.UnsendableError) as broken:
            # The vehicle sends the update again and gets "duplicate": a receipt as good.
            log.warning("receipt not sent %s: %s", log_keys(receipt, base), broken)


@dataclass(frozen=True)
class _Arrived:
    """A whole frame, and the packet that brought it or its last chunk."""

    packet: Packet
    sender: str
    leaf: str
    frame: bytes


def _answerable(named: wire.Named | None, arrived: _Arrived, why: wire.WireError) -> wire.Named:
    """Raises WireError for a frame of which no receipt can tell its sender."""
    if arrived.leaf != "update" or named is None:
        raise why
    if named.vehicle != arrived.sender:
        raise wire.WireError(f"names {named.vehicle!r} on the topic of {arrived.sender!r}") from why
    return named
