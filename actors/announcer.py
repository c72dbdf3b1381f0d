"""Has every release retained at the broker, and retained again where the broker lost it. Knows no update."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable

import msgspec

from actors.retained import Retained
from fleetfl import topics, wire
from fleetfl.messages import Release, Snapshot
from fleetfl.tasks import together
from fleetfl.telemetry import EventLog
from fleetfl.transport import Transport, TransportError

log = logging.getLogger(__name__)

Announcement = Callable[[int], Awaitable[tuple[Snapshot, list[Release]]]]
"""The newest version once it is past this one, with the releases past this one, newest last."""


class Announcer:
    """With `signer` it signs what it says. It looks every `look_s` whether all is still there."""

    def __init__(
        self,
        fleet: str,
        *,
        transport: Transport,
        announcement: Announcement,
        events: EventLog,
        signer: wire.Signer | None = None,
        look_s: float = 30.0,
    ) -> None:
        self.fleet, self.transport, self.announcement = fleet, transport, announcement
        self.events, self.signer, self.look_s = events, signer, look_s
        self.retained = Retained(transport)
        self.publishing = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        await together(news=self._announce(), look=self._look_after())

    async def _announce(self) -> None:
        version = -1
        while True:
            try:
                snapshot, releases = await self.announcement(version)
                async with self.publishing:
                    sizes = await self._publish(snapshot, releases)
            except TransportError as broken:
                log.warning("what came after release %d is not announced yet: %s", version, broken)
                continue
            except (
                Exception
            ) as odd:  # the loop must live: the next release may be one that can be sent
                log.exception("what came after release %d is not announced", version)
                self.events.write("announcement_failed", after=version, detail=str(odd)[:300])
                await asyncio.sleep(self.look_s)
                continue
            version = snapshot.version
            self.events.write("announced", version=version, **sizes)

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self.look_s)
            try:
                async with self.publishing:
                    await self._mend()
            except Exception as broken:  # as above
                log.warning("what is retained was not looked at: %s", broken)

    async def _mend(self) -> None:
        """Raises TransportError."""
        lost = await self.retained.lost()
        if lost:
            log.error("the broker LOST what was retained at %s: published again", ", ".join(lost))
            snapshot, releases = await self.announcement(-1)
            await self._publish(snapshot, releases)
            self.events.write("retained_lost", topics=lost, version=snapshot.version)

    async def _publish(self, snapshot: Snapshot, releases: list[Release]) -> dict[str, int]:
        """Gives what the newest release and the snapshot weigh. Raises TransportError."""
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
