"""Outbox and error feedback as one: what was learned is in a frame, left over or counted; never two."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from fleetfl.codecs import CodecConfig
from fleetfl.protocol import wire
from fleetfl.protocol.log_keys import UNKNOWN_BASE, log_keys
from fleetfl.protocol.messages import ROLLED_BACK, Update
from fleetfl.releases.versions import CurrentRelease
from fleetfl.vectors import Layout
from vehicle_agent.error_feedback import ErrorFeedback
from vehicle_agent.outbox import Memory, Name, Newest, Outbox, Verdict
from vehicle_agent.ports import Work

log = logging.getLogger(__name__)


class UpdateQueue:
    """Every change to outbox and residual goes through here. `sign` makes the frame of an update."""

    def __init__(
        self,
        outbox: Outbox,
        codec: CodecConfig,
        layout: Layout,
        *,
        vehicle: str,
        decay: float,
        sign: Callable[[Update], bytes],
        work: Work,
    ) -> None:
        self.outbox, self.layout, self.codec_kind = outbox, layout, codec.kind_name
        self.vehicle = vehicle
        self.sign, self.work = sign, work
        self.feedback = ErrorFeedback(codec.build(layout), layout.size, decay=decay)
        left = outbox.residual(layout.fingerprint)
        if left is not None and left.shape == (layout.size,):
            self.feedback.residual = left
        self.lock = asyncio.Lock()
        self.unsent: set[Name] = set()
        """Updates that certainly never left: made by this process, and not offered to the link yet."""
        self.came, self.went = asyncio.Event(), asyncio.Event()

    async def keep(
        self, draft: Update, delta: np.ndarray, memory: Memory, held: CurrentRelease
    ) -> Update:
        """`draft` with the body that packs `delta`, float32 [P], once it is on disk.

        Raises CodecError if training diverged; OutboxError, with all as it was, if there is no room.
        """
        async with self.lock:
            packed = await self.work(self.feedback.pack, delta)
            update = msgspec.structs.replace(draft, body=packed.body)
            self.outbox.put(
                update, self.sign(update), residual=packed.residual, memory=memory, held=held
            )
            self.feedback.residual = packed.residual
        self.unsent.add((update.boot, update.sequence))
        self.came.set()
        return update

    async def keep_as_is(self, update: Update, memory: Memory, held: CurrentRelease) -> None:
        """A whole update that leaves nothing over, once it is on disk. Raises OutboxError."""
        self.outbox.put(update, self.sign(update), memory=memory, held=held)
        self.unsent.add((update.boot, update.sequence))
        self.came.set()

    def keys(self, name: Name) -> str:
        """The keys of an update that waits, for a line of the log. Raises OutboxError."""
        waiting = {w.name: w.base_version for w in self.outbox.waiting()}
        return log_keys(_Named(self.vehicle, *name), waiting.get(name, UNKNOWN_BASE))

    async def settle(self, name: Name, verdict: Verdict, reason: str) -> bool:
        """Its end is known. False if it was before. Raises OutboxError, with all as it was.

        What a refused update held goes back into the residual; so does what expired before it was
        sent. One that was sent may have been counted, its receipt lost: that is dropped for good.
        """
        async with self.lock:
            returned = None
            if reason == ROLLED_BACK:  # what is left of such training would lead there again
                returned = np.zeros_like(self.feedback.residual)
            elif verdict == "refused" or (verdict == "expired" and name in self.unsent):
                returned = self._with_returned(name)
            known = self.outbox.resolve(
                *name, verdict, reason, layout=self.layout.fingerprint, residual=returned
            )
            if known and returned is not None:
                self.feedback.residual = returned
        self.unsent.discard(name)
        self.went.set()
        return known

    def _with_returned(self, name: Name) -> np.ndarray | None:
        """The residual if this update is never counted; None if nothing of it can return."""
        frame = self.outbox.frame(*name)
        if frame is None:
            return None
        try:
            update = wire.decode(frame)
        except wire.WireError as odd:  # an older version's, or a disk's own work
            log.warning("nothing returns of %s: %s", self.keys(name), odd)
            return None
        if not isinstance(update, Update):
            return None
        # Packed for another model, or by another codec before a change of settings, it cannot return.
        if (update.layout, update.codec) != (self.layout.fingerprint, self.codec_kind):
            return None
        try:
            return self.feedback.returned(update.body)
        except Exception as unfit:  # the codec may be anybody's
            log.warning("nothing returns of %s: %s", log_keys(update), unfit)
            return None

    async def sweep(self, newest: Newest | None) -> None:
        """Drop what is of no use any more. Raises OutboxError."""
        for item, reason in self.outbox.expired_updates(newest):
            await self.settle(item.name, "expired", reason)
            keys = log_keys(_Named(self.vehicle, *item.name), item.base_version)
            log.warning("expired (%s) %s age_s=%.0f", reason, keys, item.age_s)


@dataclass(frozen=True)
class _Named:
    vehicle: str
    boot: str
    sequence: int
