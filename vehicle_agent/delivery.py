"""Publishes what waits in the outbox, until the server has answered for it. Knows nothing of training."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from fleetfl.protocol import wire
from fleetfl.protocol.chunks import split
from fleetfl.protocol.messages import ROLLED_BACK, SERVER, SIGNATURE, Receipt
from fleetfl.task_group import together
from fleetfl.transport import Packet, PacketRefused, Transport, TransportError
from vehicle_agent.outbox import Name, Newest, OutboxError, Waiting
from vehicle_agent.update_queue import UpdateQueue

log = logging.getLogger(__name__)

MIN_CHUNK_BYTES = 8192
"""Payloads are not made smaller than this in search of one that gets through."""
PATIENT_TRIES = 2
"""Publishes without a receipt before it may be the size that some broker does not let through."""
SILENT_TRIES = 3
"""Publishes without a receipt before that is said."""
OVERDUE_WAITS = 10
"""Waits of `resend_s` without a receipt, after which a status says why, whatever else went well."""
LONGEST_DOUBLING = 6
PASSING = ("stale", ROLLED_BACK, "declined", "step", "earlier")
"""Reasons of a refusal that are no fault of the vehicle's: the next update may well be counted."""


@dataclass
class _Tries:
    number: int = 0
    due_s: float = 0.0


class Delivery:
    """At least once: an update goes again, less and less often, until its receipt comes.

    `newest` says what the server's newest release is, `tell` takes what is in the way in words ("" for
    nothing any more).
    """

    def __init__(
        self,
        books: UpdateQueue,
        *,
        vehicle: str,
        transport: Transport,
        update_topic: str,
        receipt_topic: str,
        server_key: wire.Verifier | None,
        resend_s: float,
        newest: Callable[[], Newest | None],
        tell: Callable[[str], None],
        seed: str = "",
    ) -> None:
        self.vehicle, self.books, self.transport = vehicle, books, transport
        self.update_topic, self.receipt_topic = update_topic, receipt_topic
        self.server_key, self.resend_s = server_key, resend_s
        self.newest, self.tell = newest, tell
        self.random = random.Random(seed)
        self.max_bytes = transport.max_payload_bytes
        """Of a payload: as configured, or less where that did not get through."""
        self.tries: dict[Name, _Tries] = {}
        self.partly_sent: dict[tuple[Name, int], int] = {}
        """Chunks the broker has, of an update that a broken link cut off; by name and chunk size."""
        self.is_refused = False
        """The last receipt said that the server does not take our signature."""
        self.num_bytes = 0
        """Published, repeats included."""

    async def run(self) -> None:
        """Until cancelled."""
        await together(publishing=self._publish(), receipts=self._take_receipts())

    def overdue(self) -> str:
        """What the oldest update has waited for too long, in words; empty if none has."""
        waiting = self.books.outbox.waiting() if len(self.books.outbox) else []
        patience_s = OVERDUE_WAITS * self.resend_s
        if not waiting or waiting[0].age_s <= patience_s:
            return ""
        oldest = waiting[0]
        if not self.transport.is_connected:
            why = "the link to the broker is down"
        elif not self.tries.get(oldest.name, _Tries()).number:
            why = "it was not sent yet, as the link takes none or those before it take all of it"
        else:
            why = f"it was sent to {self.update_topic}, and the server has not answered"
        return f"update {oldest.boot}/{oldest.sequence} waits for more than {patience_s:g} s: {why}"

    async def _publish(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self.books.came.clear()
            try:
                await self._sweep()
                pause_s = await self._round(clock)
            except OutboxError as unreadable:
                self.tell(str(unreadable))
                pause_s = self.resend_s
            except Exception as odd:  # the loop must live
                log.exception("updates were not sent")
                self.tell(f"updates were not sent: {type(odd).__name__}: {odd}")
                pause_s = self.resend_s
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.books.came.wait(), max(pause_s, 0.1))

    async def _sweep(self) -> None:
        try:
            await self.books.sweep(self.newest())
        except OutboxError as full:
            self.tell(str(full))  # what has a place may be sent all the same

    async def _round(self, clock: Callable[[], float]) -> float:
        """Publish what is due, oldest first; gives the seconds until something is."""
        waiting = self.books.outbox.waiting()
        self.tries = {w.name: self.tries.get(w.name, _Tries()) for w in waiting}
        for item in waiting:
            tries = self.tries[item.name]
            if tries.due_s > clock():
                continue
            try:
                await self._offer(item, tries)
            except PacketRefused as poison:
                # This one, not the link: the others must not wait behind it.
                log.warning("not sent %s: %s", self.books.keys(item.name), poison)
                self.tell(str(poison))
                self._shrink(item)
            except TransportError as broken:
                self.tell(str(broken))
                return self.resend_s
            else:
                self._tell_silence(tries.number + 1)
            tries.number += 1
            tries.due_s = clock() + self._patience_s(tries.number)
        return min((t.due_s for t in self.tries.values()), default=clock() + 60.0) - clock()

    def _tell_silence(self, num_sent: int) -> None:
        """Brokers may acknowledge what they drop, so nothing but the missing receipt tells."""
        if self.is_refused:
            return  # there are receipts, and what they say is what hinders
        if num_sent >= SILENT_TRIES:
            self.tell(
                f"updates stay without a receipt, sent {SILENT_TRIES} times or more: does the server run, "
                f"and does the broker let {self.update_topic} through (access rules, size limit, full queue)?"
            )
        elif all(tries.number < SILENT_TRIES for tries in self.tries.values()):
            self.tell("")

    def _patience_s(self, number: int) -> float:
        # Jitter, so that a fleet does not ask a server that comes back in step.
        return self.resend_s * 2 ** min(number - 1, LONGEST_DOUBLING) * self.random.uniform(1, 1.25)

    async def _offer(self, item: Waiting, tries: _Tries) -> None:
        """Raises TransportError, of which PacketRefused if the broker hangs up on it."""
        if tries.number >= PATIENT_TRIES:
            # Under MQTT 3.1.1 a broker may acknowledge what is too large for it, and drop it.
            self._shrink(item)
        frame = self.books.outbox.frame(*item.name)
        if frame is not None:
            self.books.unsent.discard(item.name)
            await self._send(item.name, frame)

    def _shrink(self, item: Waiting) -> None:
        if item.num_bytes > MIN_CHUNK_BYTES < self.max_bytes:
            self.max_bytes = max(MIN_CHUNK_BYTES, min(self.max_bytes, item.num_bytes) // 2)
            log.warning("payloads of at most %d bytes from now on", self.max_bytes)

    async def _send(self, name: Name, frame: bytes) -> None:
        """Publish it, in chunks if need be, from where the link broke the last time.

        Raises TransportError.
        """
        payloads = split(frame, self.max_bytes)
        place = (name, self.max_bytes)
        num_sent = self.partly_sent.pop(place, 0)
        for number, payload in enumerate(payloads[num_sent:], start=num_sent):
            self.partly_sent[place] = number
            await self.transport.publish(self.update_topic, payload)
            self.num_bytes += len(payload)
        self.partly_sent = {p: n for p, n in self.partly_sent.items() if p[0] != name}

    async def _take_receipts(self) -> None:
        async with self.transport.subscribe(self.receipt_topic) as packets:
            async for packet in packets:
                packet.ack()
                try:
                    await self._take(packet)
                except Exception:  # as above
                    log.exception("a receipt was not taken")

    async def _take(self, packet: Packet) -> None:
        try:
            receipt = wire.decode(packet.payload, self.server_key, sender=SERVER)
        except wire.WireError as noise:
            log.warning("receipt dropped: %s", noise)
            return
        if not isinstance(receipt, Receipt):
            return
        if receipt.vehicle != self.vehicle:
            # Signed by our server, and put here by somebody else.
            log.warning("receipt dropped: it is %s's", receipt.vehicle)
            return
        self.is_refused = receipt.reason == SIGNATURE
        if self.is_refused:
            self.tell(
                f"the server refuses this vehicle's signature: {receipt.detail or 'see its log'}"
            )
            return
        name = (receipt.boot, receipt.sequence)
        try:
            keys = self.books.keys(name)  # not known any more once it is settled
            was_waiting = await self.books.settle(name, receipt.verdict, receipt.reason)
        except OutboxError as full:
            self.tell(str(full))  # the update goes again, and gets a receipt again
            return
        if was_waiting:
            self._tell_end(receipt)
            why = f"({receipt.reason}): {receipt.detail}" if receipt.reason else ""
            log.info("%s %s staleness=%d %s", receipt.verdict, keys, receipt.staleness, why)
        self.books.came.set()

    def _tell_end(self, receipt: Receipt) -> None:
        """A refusal that would come again, whatever is learned next, hinders."""
        if receipt.verdict != "refused" or receipt.reason in PASSING:
            self.tell("")
        elif receipt.detail:
            self.tell(f"the server refuses updates ({receipt.reason}): {receipt.detail}")
        else:
            self.tell(f"the server refuses updates: {receipt.reason}")
