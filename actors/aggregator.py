"""The actor that owns the model: counts the journal's rows, each once and in their order, and tells callers.

The model after a row follows from the rows alone. So a checkpoint is only there to shorten the replay, and
every method may be called again by whoever got no answer.
"""

import asyncio
import logging
import math
import os
import time

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from actors.config import ServerConfig
from actors.counting.model_state import ModelState, initial_coordinator
from actors.counting.recovery import Recovery
from actors.counting.row_judge import RowJudge
from actors.malloc import keep_freed
from actors.monitoring.metrics import Metrics
from fleetfl.coordination.outcome import Outcome
from fleetfl.events.event_log import EventLog
from fleetfl.protocol.messages import Release, Snapshot
from fleetfl.registry.registry import RegistryError
from fleetfl.releases.generations import Order, order_of
from fleetfl.storage.checkpoints import CheckpointError
from fleetfl.storage.high_water import HighWater
from fleetfl.storage.journal import Journal, JournalError

log = logging.getLogger(__name__)

BATCH = 64
"""Rows counted before other calls get their turn."""
TICK_S = 0.5
"""Seconds between two looks for rows that no gateway asks about."""
FREED_BYTES = 256 * 2**20
"""Memory of summed updates that stays with the process, for the next ones."""


class AggregatorActor:
    """Plain class: `cluster.py` makes it remote. Built from settings and the state folder."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises JournalError or CheckpointError for a state folder that it cannot go on from."""
        began = time.monotonic()
        keep_freed(FREED_BYTES)
        self.config = config
        self.coordinator = initial_coordinator(config)
        self.metrics = Metrics()
        self.events = EventLog(
            config.state / "events.jsonl", bounds=config.events, watch=self.metrics.heard
        )
        self.last_told = HighWater(config.told_path)
        """The last row of the journal whose events were written; outlives a crash."""
        self.journal = Journal(config.journal_path)
        self.state = ModelState(config, self.coordinator, self.journal, self.events)
        self.saving = self.state.saving
        self.recovery = Recovery(
            config, self.state, journal=self.journal, events=self.events, last_told=self.last_told
        )
        self.judge = RowJudge(
            config, self.state, self.recovery, events=self.events, last_told=self.last_told
        )
        self.is_stopping = False
        """No further row is counted."""
        self.changed = asyncio.Condition()
        from_row = self._replay()
        self._register_metrics()
        self.events.write(
            "aggregator_started",
            pid=os.getpid(),
            version=self.coordinator.version,
            generation=self.coordinator.published.generation,
            replayed=self.counted - from_row,
            seconds=round(time.monotonic() - began, 3),
        )

    @property
    def counted(self) -> int:
        """Number of the last counted row."""
        return self.state.counted

    @property
    def told(self) -> int:
        """The last row of the journal whose events were written."""
        return self.last_told.number

    @property
    def snapshot(self) -> Snapshot:
        """The newest release, whole."""
        return self.state.snapshot

    def _replay(self) -> int:
        """Resume from disk and count every row of the journal; gives the row of the checkpoint."""
        from_row = self.recovery.resume()
        while self.judge.count(BATCH):
            pass
        self.recovery.require_no_gap(None)
        self.recovery.succeed_restore()
        return from_row

    async def repair_journal(self) -> None:
        """Repair the journal for a gateway that cannot append to a damaged file. Raises JournalError."""
        self.recovery.repair("as a gateway found")
        await self._notify_waiting()

    async def run(self) -> None:
        """Count rows that no gateway asks about and write due checkpoints, until cancelled."""
        self.is_stopping = False
        try:
            await self._go_on()
        finally:
            self.stop()

    def stop(self) -> None:
        """Count no more; returns once a checkpoint has all that was counted, or the failure is logged."""
        self.is_stopping = True
        if self.saving.is_behind(self.counted):
            self.saving.try_keep(self.counted, self.state.values())
        self.events.write("aggregator_stopped", counted_row=self.counted)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if self.saving.is_damage_seen:
                    self.recovery.repair("as trimming found")
                while await self._count_on():
                    pass
            except (JournalError, RegistryError, CheckpointError) as failed:
                log.error("nothing is counted: %s", failed)  # until the disk is back
            except Exception:  # the loop must live: gateways wait for what it counts
                log.exception("nothing is counted")
            self.saving.if_due(self.counted, self.state.values)

    async def outcome(self, row: int) -> Outcome:
        """The outcome of the update in this row of the journal, which is counted first if it was not.

        Raises JournalError if the row is not there or damaged: the update has to come again.
        """
        while row > self.counted:
            if not await self._count_on():
                raise JournalError(f"journal {self.journal.path} has no row {row}")
        return self.judge.outcome(row)

    async def outcomes_of(self, rows: list[int]) -> list[Outcome | Exception]:
        """`outcome` of each, or the JournalError that it raises."""
        found: list[Outcome | Exception] = []
        for row in rows:
            try:
                found.append(await self.outcome(row))
            except JournalError as failed:
                found.append(failed)
        return found

    async def _count_on(self) -> int:
        """Count the next rows, wake callers that wait for a version, and give other calls their turn.

        Gives how many rows were counted.
        """
        if self.is_stopping:
            return 0
        order = order_of(self.snapshot)
        num_rows = self.judge.count(BATCH)
        if order_of(self.snapshot) > order:
            await self._notify_waiting()
        self.saving.if_due(self.counted, self.state.values)
        await asyncio.sleep(0)
        return num_rows

    async def wait_for_version(self, than: Order) -> Snapshot:
        """The newest version, once one stands behind `than` (BEFORE_ALL: at once).

        A caller that names a later version than the newest one has it from this server, as it was before
        it lost that version; a new generation then begins past it.
        """
        while than > order_of(self.snapshot):
            await self._outrank(than)
        async with self.changed:
            await self.changed.wait_for(lambda: order_of(self.snapshot) > than)
        return self.snapshot

    async def _outrank(self, than: Order) -> None:
        number, version = than
        why = f"version {version} of generation {number} is out already, signed with this server's key"
        try:
            self.state.begin_generation(why, self.counted, past=number)
        except Exception as failed:  # such as a full disk: until it is back
            log.error("no generation is begun: %s", failed)
            await asyncio.sleep(TICK_S)
        await self._notify_waiting()

    async def _notify_waiting(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def announcement(self, than: Order) -> tuple[Snapshot, list[Release]]:
        """The newest version once it stands behind `than`, with the releases behind `than`, newest last.

        The releases are those that vehicles may still ask for.
        """
        snapshot = await self.wait_for_version(than)
        return snapshot, self.coordinator.published.later_than(than)

    def _register_metrics(self) -> None:
        for name, about, value in (
            ("version", "The newest release.", lambda: self.coordinator.version),
            ("counted_row", "The journal's last row that was counted.", lambda: self.counted),
            ("journal_lag_rows", "Rows kept and not counted yet.", self._lag),
            (
                "buffered_updates",
                "Updates folded in since the last release.",
                lambda: self.coordinator.aggregator.buffered,
            ),
            (
                "buffer_goal_updates",
                "Updates that make a release.",
                lambda: getattr(self.config.aggregator, "goal", 1),
            ),
            (
                "checkpoint_age_seconds",
                "Seconds since the newest checkpoint was written.",
                lambda: time.monotonic() - self.saving.durable_at,
            ),
            (
                "event_lines_missing",
                "Event lines dropped since the last successful write.",
                lambda: self.events.missing,
            ),
        ):
            self.metrics.gauge(f"fleetfl_{name}", about, value)

    def _lag(self) -> float:
        try:
            return self.journal.newest_row() - self.counted
        except JournalError:
            return math.nan

    async def measured(self) -> list[Metric]:
        """The actor's metrics at this moment, in Prometheus' types."""
        banned = GaugeMetricFamily(
            "fleetfl_banned_vehicle", "1 for each vehicle that is banned.", labels=["vehicle"]
        )
        for vehicle in self.coordinator.banned:
            banned.add_metric([vehicle], 1)
        return [*self.metrics.collected(), banned]

    async def ping(self) -> int:
        """The newest version; an answer shows that the actor is up."""
        return self.coordinator.version
