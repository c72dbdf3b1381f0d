"""Publishes every release as a retained message, and again where the broker lost it. Knows no update.

Before its first publication it reads what the broker retains: a server that was restored, or lost a part of
its state, must not announce below a version that its own key has signed, as no vehicle would follow.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable

import msgspec

from actors.retained_publisher import RetainedPublisher
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import SERVER, Release, Snapshot
from fleetfl.protocol.signing import Signer
from fleetfl.releases.generations import BEFORE_ALL, LAST_NUMBER, LAST_VERSION, Order, order_of
from fleetfl.task_group import together
from fleetfl.transport import Transport, TransportError

log = logging.getLogger(__name__)

FIRST_LOOK_S = 1.0
"""Seconds that a starting server waits for its own retained messages. The broker sends them at once if it
has them; vehicles prove a release that is missed all the same (`topics.proof`)."""

Announcement = Callable[[Order], Awaitable[tuple[Snapshot, list[Release]]]]
"""Returns the newest version once it stands behind the given place, with the releases since, newest last."""


def place_to_pass(news: Release | Snapshot, newest: Snapshot) -> Order | None:
    """The place that a version must pass to be taken by holders of `news`; None if `newest` does.

    Both messages carry this server's signature. Two generations of one number, or one version of two bits,
    cannot be told apart by their order, so that the next has to pass the whole generation.
    """
    said, now = order_of(news), order_of(newest)
    is_same = (news.generation, news.sha256) == (newest.generation, newest.sha256)
    if said[0] == now[0] and (
        news.generation != newest.generation or (said == now and not is_same)
    ):
        return said[0], LAST_VERSION
    return said if said > now else None


class Announcer:
    """Announces releases, and republishes retained ones that the broker lost.

    With `signer` it signs its messages and recognises its own; it checks the broker every `look_s` seconds.
    """

    def __init__(
        self,
        fleet: str,
        *,
        transport: Transport,
        announcement: Announcement,
        events: EventLog,
        signer: Signer | None = None,
        look_s: float = 30.0,
        retry_s: float = 1.0,
    ) -> None:
        self.fleet, self.transport, self.announcement = fleet, transport, announcement
        self.events, self.signer, self.look_s, self.retry_s = events, signer, look_s, retry_s
        self.retained = RetainedPublisher(transport)
        self.publishing = asyncio.Lock()

    async def run(self) -> None:
        """Announce new releases and check the retained ones, until cancelled."""
        await together(news=self._announce(), look=self._look_after())

    async def _announce(self) -> None:
        order = BEFORE_ALL
        await self._speak_behind_all_that_was_said()
        while True:
            try:
                snapshot, releases = await self.announcement(order)
                async with self.publishing:
                    sizes = await self._publish(snapshot, releases)
            except TransportError as broken:
                log.warning("what came after release %d is not announced yet: %s", order[1], broken)
                continue
            except Exception as odd:  # the loop must live: the next one may be one that can be sent
                log.exception("what came after release %d is not announced", order[1])
                self.events.write("announcement_failed", after=order[1], detail=str(odd)[:300])
                await asyncio.sleep(self.look_s)
                continue
            order = order_of(snapshot)
            self.events.write("announced", version=snapshot.version, **sizes)

    async def _speak_behind_all_that_was_said(self) -> None:
        """Return once the newest version stands behind all that the broker has with our signature."""
        if self.signer is None:
            return
        while True:
            try:
                for news in await self._said():
                    await self.outrank(news)
                return
            except Exception as broken:  # the loop must live, and not speak before it knows
                log.warning("what was announced before is not known yet: %s", broken)
                await asyncio.sleep(self.retry_s)

    async def _said(self) -> list[Release | Snapshot]:
        """Releases and snapshots at the broker with this server's signature. Raises TransportError."""
        found = await asyncio.gather(
            self.retained.first(topics.release(self.fleet), self.ours, FIRST_LOOK_S),
            self.retained.first(topics.snapshot_chunks(self.fleet), self.ours, FIRST_LOOK_S),
        )
        return [news for news in found if news is not None]

    def ours(self, frame: bytes) -> Release | Snapshot | None:
        """The frame's message, if this server's key has signed it."""
        if self.signer is None:
            return None
        try:
            message = wire.decode(frame, self.signer, sender=SERVER)
        except wire.WireError as foreign:
            log.warning("what is retained is not ours: %s", foreign)
            return None
        return message if isinstance(message, Release | Snapshot) else None

    def _tell_of_another(self, news: Release | Snapshot) -> None:
        """Report a later version with this server's signature: only a copy of the server has its key."""
        log.error(
            "ANOTHER SERVER with this server's key announces in fleet %s (version %d of %s), such as one "
            "restored from a backup: stop one of the two. Until then each refuses what vehicles train "
            "from the other's versions",
            self.fleet,
            news.version,
            news.generation,
        )
        self.events.write("another_server", version=news.version, generation=news.generation)

    async def outrank(self, news: Release | Snapshot) -> bool:
        """Begin a new generation if vehicles that hold `news` would not take the newest version.

        Gives whether that was necessary.
        """
        newest, _ = await self.announcement(BEFORE_ALL)
        beyond = place_to_pass(news, newest)
        if beyond is None:
            return False
        log.error(
            "the broker has version %d of %s, signed with our key; here it is version %d of %s",
            news.version,
            news.generation,
            newest.version,
            newest.generation,
        )
        if beyond[0] >= LAST_NUMBER:
            log.error("nothing stands behind generation %d: who holds it stays there", beyond[0])
            return True
        await self.announcement(beyond)
        return True

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self.look_s)
            try:
                async with self.publishing:
                    await self._repair()
            except Exception as broken:  # as above
                log.warning("what is retained was not looked at: %s", broken)

    async def _repair(self) -> None:
        """Republish retained messages that the broker lost. Raises TransportError."""
        lost = await self.retained.lost()
        if self.signer is not None and topics.release(self.fleet) in lost:
            # It may have been exchanged for a later one of ours.
            for news in await self._said():
                if await self.outrank(news):
                    self._tell_of_another(news)
        if lost:
            log.error("the broker LOST what was retained at %s: published again", ", ".join(lost))
            snapshot, releases = await self.announcement(BEFORE_ALL)
            await self._publish(snapshot, releases)
            self.events.write("retained_lost", topics=lost, version=snapshot.version)

    async def _publish(self, snapshot: Snapshot, releases: list[Release]) -> dict[str, int]:
        """Gives the bytes of the newest release and of the snapshot. Raises TransportError."""
        # The news come last: whoever hears of a version finds all that leads there.
        whole = wire.encode(snapshot, self.signer)
        await self.retained.put_watched(functools.partial(topics.snapshot, self.fleet), whole)
        for release in releases:
            if release.codec:
                slot = functools.partial(topics.release_slot, self.fleet, release.version)
                await self.retained.put(slot, wire.encode(release, self.signer))
        news = wire.encode(releases[-1], self.signer)
        size = len(news)
        if size > self.transport.max_payload_bytes:
            news = wire.encode(msgspec.structs.replace(releases[-1], body=b""), self.signer)
            size += len(news)
        await self.retained.put_whole(topics.release(self.fleet), news)
        return {"bytes": size, "snapshot_bytes": len(whole)}
