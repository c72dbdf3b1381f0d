"""A vehicle's way to the newest release: by differences, or by a snapshot. Knows nothing of training.

What it holds is always a whole version, with the SHA-256 that the server named.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from fleetfl.protocol import topics, wire
from fleetfl.protocol.chunks import Assembler
from fleetfl.protocol.messages import SERVER, Release, Snapshot
from fleetfl.releases.frame_bounds import max_frame_bytes
from fleetfl.releases.generations import order_of
from fleetfl.releases.versions import CurrentRelease, Follower, OlderRelease, ReleaseError
from fleetfl.transport import Packet, Transport, TransportError
from fleetfl.vectors import Layout
from vehicle_agent.outbox import Newest

log = logging.getLogger(__name__)

News = TypeVar("News", Release, Snapshot)

PATIENT_WAITS = 10
"""Waits of `retry_s` without any release, after which that is said."""


class ReleaseFollower:
    """Follows one fleet's releases until cancelled.

    `tell` gets what is in the way, in words, and nothing ("") once a release is reached. With
    `server_key` it believes only what its server has signed. It goes on from `held`, if that is
    given, and takes nothing that `follower` takes for past.
    """

    def __init__(
        self,
        fleet: str,
        layout: Layout,
        *,
        held: CurrentRelease | None = None,
        follower: Follower,
        transport: Transport,
        server_key: wire.Verifier | None,
        fetch_s: float,
        retry_s: float,
        tell: Callable[[str], None],
        proof_topic: str = "",
    ) -> None:
        self.fleet, self.transport, self.server_key = fleet, transport, server_key
        self.fetch_s, self.retry_s, self.tell = fetch_s, retry_s, tell
        self.follower = follower
        self.max_frame_bytes = max_frame_bytes(layout)
        self.proof_topic, self.word = proof_topic, b""
        """`word` is the frame of the last release that was followed; it goes to `proof_topic` if the server
        offers an older one, as it may have lost what it said."""
        self.num_bytes = 0
        """Of release and snapshot frames received."""
        self.max_staleness = -1
        """Versions that an update's base may be behind, as the server's last release said."""
        self.came = asyncio.Event()
        """A release is held."""
        self.older: Release | None = None
        """The last word so far, if that was a release from before what is held."""
        if held is not None:
            # A follower that holds one already holds a later one than the disk does.
            self.follower.held = self.follower.held or held
            self.came.set()

    @property
    def held(self) -> CurrentRelease | None:
        return self.follower.held

    def newest(self) -> Newest | None:
        """What is known of the server's newest version."""
        held = self.held
        return held and Newest(held.generation, held.version, self.max_staleness)

    async def run(self) -> None:
        topic = topics.release(self.fleet)
        release, frame = None, b""
        patience_s: float | None = None if self.held else PATIENT_WAITS * self.retry_s
        # QoS 0: a broker queues nothing for a vehicle that is away, and on its return the retained
        # newest tells how far it is behind.
        async with self.transport.subscribe(topic, qos=0) as packets:
            while True:
                try:
                    packet = await asyncio.wait_for(anext(packets), patience_s)
                    frame = self._payload(packet)
                    release = self._message(frame, Release)
                except asyncio.TimeoutError:
                    pass  # no news: try the last again
                except wire.WireError as noise:
                    self.tell(f"release dropped: {noise}")
                    continue
                except StopAsyncIteration:
                    return
                if release is None:
                    self.tell(
                        f"no release came yet: does the server run, and does the broker let {topic} through?"
                    )
                    patience_s = None
                else:
                    patience_s = None if await self._reach(release, frame) else self.retry_s

    def _payload(self, packet: Packet) -> bytes:
        packet.ack()
        self.num_bytes += len(packet.payload)
        return packet.payload

    def _message(self, frame: bytes, kind: type[News]) -> News:
        """Raises WireError for anything else, or if the server has not signed it."""
        message = wire.decode(frame, self.server_key, sender=SERVER)
        if not isinstance(message, kind):
            raise wire.WireError(f"a {type(message).__name__}, expected a {kind.__name__}")
        return message

    async def _reach(self, release: Release, frame: bytes) -> bool:
        """Whether this release is done with; if not, to be tried again. It came as `frame`."""
        try:
            if self.follower.is_past(release):
                return await self._passed_over(release)
            if not self.follower.has(release):
                await self._follow(release)
        except (ReleaseError, wire.WireError) as unfit:
            self.tell(f"release dropped: {unfit}")
            return True
        except TransportError as broken:
            self.tell(f"version {release.version} is out of reach: {broken}")
            return False
        except Exception as odd:  # the loop must live: the next release may be a sound one
            log.exception("release %d was not followed", release.version)
            self.tell(f"release dropped: {type(odd).__name__}: {odd}")
            return True
        self.max_staleness = release.max_staleness
        held = self.held
        if held is None or order_of(held) < order_of(release):
            at = "none" if held is None else f"version {held.version} of {held.generation}"
            self.tell(
                f"version {release.version} is out of reach: the snapshot at the broker leads to {at} only"
            )
        else:
            self.tell("")
            self.word = frame
        if held is not None:
            self.came.set()
        return True

    async def _passed_over(self, release: Release) -> bool:
        """Not taken. Said once it stays the last word: one that was overtaken on its way is no news."""
        if self.older is not release:
            self.older = release
            return False
        held = self.held
        self.tell(
            "an older release was offered and is not taken: "
            f"version {release.version} of {release.generation}"
            + (f", held is version {held.version} of {held.generation}" if held else "")
        )
        if self.word and self.proof_topic:
            with contextlib.suppress(TransportError):  # it is offered again when the link is back
                await self.transport.publish(self.proof_topic, self.word)
        return True

    async def _follow(self, release: Release) -> None:
        """By differences if that is possible and cheaper, else by the newest snapshot.

        Raises ReleaseError or WireError for unfit messages, TransportError if nothing came.
        """
        missing = self.follower.missing(release)
        if missing is not None:
            try:
                for version in missing:
                    self.follower.apply(await self._difference(version))
                self.follower.apply(await self._with_body(release))
                return
            except (ReleaseError, wire.WireError, TransportError) as broken:
                log.error("no way to version %d but the snapshot: %s", release.version, broken)
        with contextlib.suppress(OlderRelease):  # what is held stays, and that is said
            self.follower.adopt(await self._snapshot())
        if not self.follower.has(release) and self.follower.missing(release) == range(0):
            self.follower.apply(await self._with_body(release))

    async def _with_body(self, release: Release) -> Release:
        return release if release.body else await self._difference(release.version)

    async def _difference(self, version: int) -> Release:
        """This release from its slot at the broker."""
        slot = topics.release_slot_chunks(self.fleet, version)
        return await self._retained(slot, Release, f"release {version}")

    async def _snapshot(self) -> Snapshot:
        """The newest one."""
        return await self._retained(topics.snapshot_chunks(self.fleet), Snapshot, "a snapshot")

    async def _retained(self, topic_filter: str, kind: type[News], what: str) -> News:
        """What the retained chunks make.

        Whatever lies beside a snapshot is passed over; for a difference that raises WireError.
        Raises TransportError after `fetch_s`.
        """
        # Among the chunks there may be some that older frames left.
        assembler = Assembler(max_open_per_sender=16, max_frame_bytes=self.max_frame_bytes)
        clock = asyncio.get_running_loop().time

        async def message() -> News:
            async with self.transport.subscribe(topic_filter, qos=0) as packets:
                async for packet in packets:
                    try:
                        whole = assembler.add("server", self._payload(packet), clock())
                        if whole is not None:
                            return self._message(whole, kind)
                    except wire.WireError as noise:
                        if kind is not Snapshot:
                            raise
                        # There is no other way than by it, and the sound one may lie beside.
                        self.tell(f"what lies beside {what} is passed over: {noise}")
            raise TransportError(f"the link was closed before {what} came")

        try:
            return await asyncio.wait_for(message(), self.fetch_s)
        except asyncio.TimeoutError as late:
            raise TransportError(
                f"waited {self.fetch_s:g} s for {what}: is it retained at the broker?"
            ) from late
