"""The server of a virtual fleet: the real Gateway and Coordinator around a journal that is a dict."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable

import numpy as np

from actors.gateway import Gateway
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.outcome import Outcome, judged
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.events.event_log import EventLog
from fleetfl.protocol.messages import Release, Snapshot, Update
from fleetfl.releases.generations import Order, order_of
from fleetfl.storage.journal import Offset
from fleetfl.transport import Transport
from fleetfl.vectors import Layout

REMEMBERED = 100_000
"""Updates whose repeats are still told by their row."""


GENERATION = "virtual"
"""Name of the generation of all versions: a virtual server never loses what it released."""


def coordinator_of(
    settings: CoordinatorSettings, initial: np.ndarray, layout: Layout
) -> Coordinator:
    """The coordinator of a virtual fleet's server; `initial`, float32 [P], is version 0."""
    return Coordinator.from_settings(settings, initial, layout, generation=GENERATION)


class MemoryJournal:
    """Rows that wait to be counted, and the numbers of the newest of those that were. Never fails."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Update, int]] = {}
        """Update and size of its frame."""
        self.numbers: OrderedDict[tuple[str, str, int], int] = OrderedDict()
        self.newest = 0

    async def append(self, update: Update, frame: bytes) -> Offset:
        name = (update.vehicle, update.boot, update.sequence)
        if (row := self.numbers.get(name)) is not None:
            return Offset(row, is_new=False)
        self.newest += 1
        self.rows[self.newest] = (update, len(frame))
        self.numbers[name] = self.newest
        if len(self.numbers) > REMEMBERED:
            self.numbers.popitem(last=False)
        return Offset(self.newest, is_new=True)


class VirtualServer:
    """Counts rows in their order and tells gateways of releases; no actor, no disk, no time of its own."""

    def __init__(self, fleet: str, coordinator: Coordinator, events: EventLog) -> None:
        self.fleet, self.coordinator, self.events = fleet, coordinator, events
        self.journal = MemoryJournal()
        self.outcomes: OrderedDict[int, Outcome] = OrderedDict()
        self.counted = 0
        self.staleness: list[int] = []
        """Of each accepted update, in order."""
        self.accepted: Counter[str] = Counter()
        """Updates by vehicle."""
        self.refused: Counter[str] = Counter()
        self.bytes_up = 0
        """Frames of updates."""
        self.on_release: list[Callable[[int], None]] = []
        """Told of each version as it comes to be."""
        self.on_accepted: Callable[[int], None] = lambda updates: None
        """Told how many were, after each."""
        self.changed = asyncio.Event()
        self._tell_release()

    def gateway(self, transport: Transport, partition: int) -> Gateway:
        return Gateway(
            self.fleet,
            partition,
            transport=transport,
            journal=self.journal,  # pyright: ignore[reportArgumentType] -- its `append` is all that is used
            outcome=self.outcome,
            announcement=self.announcement,
            events=self.events,
            max_in_flight=1024,
            look_s=86_400.0,  # this broker forgets nothing
        )

    async def outcome(self, row: int) -> Outcome:
        while self.counted < row:
            self.counted += 1
            self._judge(self.counted)
        return self.outcomes[row]

    async def announcement(self, than: Order) -> tuple[Snapshot, list[Release]]:
        while order_of(self.coordinator.published) <= than:
            self.changed.clear()
            await self.changed.wait()
        published = self.coordinator.published
        return published.whole(), published.later_than(than)

    def _judge(self, row: int) -> None:
        update, size = self.journal.rows.pop(row)
        outcome = self.coordinator.submit(update, at_s=self.events.clock())
        self.outcomes[row] = outcome
        if len(self.outcomes) > REMEMBERED:
            self.outcomes.popitem(last=False)
        self.bytes_up += size
        self._tell(row, update, outcome, size)
        if outcome.released:
            self._tell_release()
            self.changed.set()
            for tell in self.on_release:
                tell(outcome.version)

    def _tell(self, row: int, update: Update, outcome: Outcome, size: int) -> None:
        event, about = judged(update, outcome, num_bytes=size, row=row)
        self.events.write(event, **about)
        if outcome.reason is not None:
            self.refused[outcome.reason.value] += 1
        if outcome.verdict == "accepted":
            self.staleness.append(outcome.staleness)
            self.accepted[update.vehicle] += 1
            self.on_accepted(len(self.staleness))

    def _tell_release(self) -> None:
        published = self.coordinator.published
        self.events.write("released", version=published.version, sha256=published.sha256.hex())
