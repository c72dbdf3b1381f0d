"""The single owner of the model: counts the journal's rows, each once and in their order, on one Coordinator.

What it is after a row follows from the rows alone. So a checkpoint is only there to shorten the replay, and
every method may be called again by whoever got no answer.
"""

import asyncio
import logging
import math
import os
import time
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from actors.checkpointer import Checkpointer
from actors.config import ServerConfig
from actors.malloc import keep_freed
from actors.monitoring.metrics import Metrics
from actors.naming import GenerationNames
from fleetfl import closed_form
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.deduplication import Contribution
from fleetfl.coordination.outcome import Outcome, Refusal, judged
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import wire
from fleetfl.protocol.log_keys import log_keys
from fleetfl.protocol.messages import SERVER, Ban, Release, Rollback, Snapshot, Update
from fleetfl.protocol.signing import IdentityError, OneKey
from fleetfl.registry import ban
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.registry.registry import RegistryError
from fleetfl.registry.release_file import Record, named
from fleetfl.registry.writer import Registrar
from fleetfl.releases.generations import GenerationError, Order, order_of
from fleetfl.storage.checkpoints import CheckpointError
from fleetfl.storage.high_water import HighWater
from fleetfl.storage.journal import Journal, JournalDamaged, JournalError, JournalRow
from fleetfl.storage.journal_repair import repair
from fleetfl.version import code_version

log = logging.getLogger(__name__)

BATCH = 64
"""Rows counted before other calls get their turn."""
REMEMBERED = 10_000
"""Outcomes kept for whoever asks again."""
TICK_S = 0.5
"""Between two looks at what nobody asks about."""
FREED_BYTES = 256 * 2**20
"""Memory of summed updates that stays with the process, for the next ones."""


class Aggregator:
    """Plain class: `cluster.py` makes it remote. Built from settings and the state folder."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises JournalError or CheckpointError for a state folder that it cannot go on from."""
        assert config.initial is not None, "cluster.py writes one where the settings name none"
        began = time.monotonic()
        keep_freed(FREED_BYTES)
        layout, params = read_adapter(config.initial)
        self.config = config
        self.coordinator = Coordinator(
            params,
            layout,
            config.aggregator.build(layout.size),
            config.optimizer.build(layout.size),
            release_codec=config.release,
            generation="",
            max_staleness=config.max_staleness,
            clip=config.clip,
            head=config.closed_form,
        )
        log_path = config.state / "events.jsonl"
        self.metrics = Metrics()
        self.events = EventLog(log_path, bounds=config.events, watch=self.metrics.heard)
        self.last_told = HighWater(config.told_path)
        """Of the journal's rows, that the events tell of; outlives a crash."""
        self.names = GenerationNames(config)
        self.journal = Journal(config.journal_path)
        self.registrar = Registrar(config.releases, config.registry, config.recipe())
        self.saving = Checkpointer(config, self.journal, self.registrar, self.events)
        self.counted = 0
        """The last row that was."""
        self.older_rows = 0
        """Rows up to this one were kept by an older version, whose updates tell shapes alone; 0 if none."""
        self.is_stopping = False
        """No more is counted."""
        self.outcomes: dict[int, Outcome] = {}
        self.refused: dict[int, str] = {}
        """Why, of the last rows that were; in the checkpoint, unlike `outcomes`."""
        self.changed = asyncio.Condition()
        self.snapshot = self.coordinator.published.whole()
        from_row = self._resume()
        while self._count():
            pass
        self._require_no_gap(None)
        self._succeed_restore()
        self._show()
        self.events.write(
            "aggregator_started",
            pid=os.getpid(),
            version=self.coordinator.version,
            generation=self.coordinator.published.generation,
            replayed=self.counted - from_row,
            seconds=round(time.monotonic() - began, 3),
        )

    @property
    def told(self) -> int:
        """The events up to this row of the journal were written before."""
        return self.last_told.number

    def _resume(self) -> int:
        """Be what the newest checkpoint says; gives its row."""
        checkpoints = self.saving.checkpoints
        found = checkpoints.newest()
        if found is None:
            # The name is drawn by chance, so nothing that it names may go out before it is on disk.
            self.coordinator.published.rename(self._next_name())
            self.coordinator.published.former.clear()
            self.snapshot = self.coordinator.published.whole()
            self._register(time.time(), row=0, parent=None)
            self.saving.keep(0, self._state())
            self._tell_release()
            return 0
        for damage in checkpoints.set_aside:
            self.events.write("checkpoint_damaged", detail=damage)
        self.counted, state = found
        self.saving.row = self.counted
        is_older = self._restore(state)
        ban.write_down(self.config.state, self.coordinator.banned)
        if not self.last_told.is_known:  # a folder from before this file: nothing is told twice
            self.last_told.raise_to(self.counted)
        self.snapshot = self.coordinator.published.whole()
        # It is there, and stays as it was made, unless somebody has deleted or damaged it.
        self._register(time.time(), row=self.counted, parent=None)
        from_row = self.counted
        self._require_all_rows()
        if is_older:
            self.older_rows = max(self.counted, self.journal.newest_row())
            self.coordinator.last_without_meaning = 2**53
            self._end_older_rows()
            self.saving.keep(self.counted, self._state())
        settings = state.get("settings", self.registrar.fingerprint)
        if settings != self.registrar.fingerprint and self.journal.newest_row() > self.counted:
            # Those rows may have been counted before, to other bits.
            self._begin_generation("rows are counted again under other settings", self.counted)
        return from_row

    def _restore(self, state: Any) -> bool:
        """Be what the checkpoint says; gives whether it is an older version's. Raises CheckpointError."""
        try:
            return self._taken_over(state)
        except CheckpointError:
            raise
        except Exception as odd:  # of a version that wrote something else, or of other settings
            raise CheckpointError(
                f"{self.saving.checkpoints.folder}: the state after row {self.counted} does not fit the "
                f"`server` settings ({type(odd).__name__}: {odd}): put them back as they were, start the "
                "version that wrote it, or begin anew with --set server.resume=false"
            ) from odd

    def _taken_over(self, state: dict[str, Any]) -> bool:
        """Whether it is an older version's. Raises CheckpointError for another model."""
        is_older = self._is_of_an_older_version(state)
        self.older_rows = state.get("older_rows", 0)
        self.coordinator.restore(state["coordinator"])
        self.refused = dict(state.get("refused", {}))
        return is_older

    def _is_of_an_older_version(self, state: dict[str, Any]) -> bool:
        """Whether the checkpoint does not tell what values mean. Raises CheckpointError for another model."""
        ours, folder = self.coordinator.layout, self.saving.checkpoints.folder
        unlike = ours.objection(state["layout"], state.get("parts", b""), ours="the settings'")
        if not unlike:
            return False
        if "parts" not in state and state["layout"] == ours.plain.fingerprint:
            log.warning(
                "%s is of an older version, that did not note classes, backbone and adapter: taken to be "
                "those of the `model` settings",
                folder,
            )
            return True
        raise CheckpointError(f"{folder}: {unlike}; to begin anew: --set server.resume=false")

    def _end_older_rows(self) -> None:
        """Past the rows that an older version kept, no update counts that says nothing of its meaning.

        But for those that were trained from a version released by then.
        """
        if self.older_rows and self.counted >= self.older_rows:
            self.coordinator.last_without_meaning = self.coordinator.version
            self.older_rows = 0

    def _require_all_rows(self) -> None:
        """Say so loudly if rows are gone that were counted, and give no number again that one had."""
        given = max(self.counted, self.told)
        try:
            is_whole = self.journal.number_past(given)
        except JournalDamaged as damaged:
            self._repair(str(damaged))
            is_whole = self.journal.number_past(given)
        if not is_whole:
            path = self.journal.path
            log.error("journal %s was LOST, all or its end: goes on past row %d", path, given)
            self.events.write("journal_lost", counted=given)
            self._begin_generation("the journal was lost, all or its end", self.counted)

    def _require_no_gap(self, before: int | None) -> None:
        """Say so loudly if rows behind the last one counted are gone that no trimming explains.

        `before` is the next row that is there, None if there is none.
        """
        gap = self.journal.missing(self.counted, before)
        if gap is None:
            return
        first, last = gap
        log.error("rows %d to %d of journal %s are MISSING", first, last, self.journal.path)
        self.events.write("journal_rows_missing", first=first, last=last)
        self._begin_generation(f"rows {first} to {last} of the journal are missing", self.counted)
        # Last: if the disk is full, the gap has to be met again.
        self.journal.skip(first, last)

    def _succeed_restore(self) -> None:
        """After a restore from a backup: what was released since that was made is not known here."""
        marker = self.config.restored_path
        if not marker.exists():
            return
        self._begin_generation("this state was restored from a backup", self.counted)
        marker.unlink(missing_ok=True)

    async def repair_journal(self) -> None:
        """For a gateway that cannot append, because the file is damaged. Raises JournalError."""
        self._repair("as a gateway found")
        await self._tell_waiting()

    def _repair(self, why: str) -> None:
        """Have a sound file in the place of a damaged one. Raises JournalError.

        The checkpoint after it has all that was counted, so that no lost row is missed.
        """
        self.saving.is_damage_seen = False
        path = self.journal.path
        made = repair(path, max(self.counted, self.told))
        if made is None:
            return
        lost = ", ".join(map(str, made.lost)) or "none known"
        log.error(
            "journal %s was DAMAGED (%s): set aside as %s, %d rows saved, LOST: %s",
            path,
            why,
            made.aside.name,
            made.saved,
            lost,
        )
        self.events.write(
            "journal_repaired", aside=made.aside.name, saved=made.saved, lost=list(made.lost)
        )
        if made.is_complete:
            self.saving.keep(self.counted, self._state())
        else:
            self._begin_generation("rows of a damaged journal were lost", self.counted)

    def _rows(self, after: int, limit: int) -> list[JournalRow]:
        """Of the journal, repaired if it has to be. Raises JournalError."""
        try:
            return self.journal.rows(after, limit)
        except JournalDamaged as damaged:
            self._repair(str(damaged))
            return self.journal.rows(after, limit)

    async def run(self) -> None:
        """Until cancelled: count what no gateway asks about, and save also when no more comes."""
        self.is_stopping = False
        try:
            await self._go_on()
        finally:
            self.stop()

    def stop(self) -> None:
        """Count no more; returns once a checkpoint has all that was counted, or that it has not is logged."""
        self.is_stopping = True
        if self.saving.is_behind(self.counted):
            self.saving.try_keep(self.counted, self._state())
        self.events.write("aggregator_stopped", counted_row=self.counted)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if self.saving.is_damage_seen:
                    self._repair("as trimming found")
                while await self._count_on():
                    pass
            except (JournalError, RegistryError, CheckpointError) as failed:
                log.error("nothing is counted: %s", failed)  # until the disk is back
            except Exception:  # the loop must live: gateways wait for what it counts
                log.exception("nothing is counted")
            self.saving.if_due(self.counted, self._state)

    async def outcome(self, row: int) -> Outcome:
        """What became of the update in this row of the journal.

        Raises JournalError if the row is not there or damaged: the update has to come again.
        """
        while row > self.counted:
            if not await self._count_on():
                raise JournalError(f"journal {self.journal.path} has no row {row}")
        return self.outcomes.get(row) or self._outcome_before(row)

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
        """As `_count`, with word to those who wait for a version, and their turn."""
        if self.is_stopping:
            return 0
        order = order_of(self.snapshot)
        num_rows = self._count()
        if order_of(self.snapshot) > order:
            await self._tell_waiting()
        self.saving.if_due(self.counted, self._state)
        await asyncio.sleep(0)
        return num_rows

    def _count(self) -> int:
        """Count the next rows of the journal; gives how many."""
        rows = self._rows(self.counted, BATCH)
        for kept in rows:
            if kept.row > self.counted + 1:
                self._require_no_gap(kept.row)
            message = _message(kept)
            if message is None:
                self._pass_over(kept)
            elif isinstance(message, Rollback):
                self._roll_back(kept, message)
                self.counted = kept.row
            elif isinstance(message, Ban):
                self._ban(kept, message)
                self.counted = kept.row
            else:
                self._judge(kept, message)
                self.counted = kept.row
            self._end_older_rows()
        return len(rows)

    def _judge(self, kept: JournalRow, update: Update) -> None:
        try:
            outcome = self.coordinator.submit(update, at_s=kept.kept_at)
        except Exception as bug:  # else no row after this one would ever be counted
            log.exception("row %d of the journal cannot be judged: %s", kept.row, log_keys(update))
            version = self.coordinator.version
            outcome = Outcome("refused", version, 0, Refusal.BUG, f"{type(bug).__name__}: {bug}")
        self.outcomes[kept.row] = outcome
        if len(self.outcomes) > REMEMBERED:
            del self.outcomes[next(iter(self.outcomes))]
        if outcome.reason is not None:
            self.refused[kept.row] = outcome.reason.value
            if len(self.refused) > REMEMBERED:
                del self.refused[next(iter(self.refused))]
        if outcome.released:
            self.snapshot = self.coordinator.published.whole()
            parent = named(self.snapshot.generation, self.snapshot.version - 1)
            self._register(
                kept.kept_at, row=kept.row, parent=parent, updates=self.coordinator.made_of
            )
        if kept.row <= self.told:
            return
        _log_outcome(update, outcome, kept.row)
        event, about = judged(update, outcome, num_bytes=len(kept.frame), row=kept.row)
        self.events.write(event, **about)
        if outcome.released:
            self._tell_release()
        self.last_told.raise_to(kept.row)

    def _roll_back(self, kept: JournalRow, rollback: Rollback) -> None:
        """As whoever holds the server's key has asked for in this row."""
        outcome = self._rolled_back(kept, rollback)
        restores = named(rollback.generation, rollback.version)
        if outcome.released:
            self.snapshot = self.coordinator.published.whole()
            self._register(
                kept.kept_at,
                row=kept.row,
                parent=named(self.snapshot.generation, self.snapshot.version - 1),
                updates=(),
                restores=restores,
                reason=rollback.reason,
            )
        if kept.row <= self.told:
            return
        told = {"row": kept.row, "restores": restores}
        if outcome.released:
            sha256 = self.snapshot.sha256.hex()
            log.warning("row %d: rolled back to %s as %d", kept.row, restores, outcome.version)
            self.events.write(
                "rolled_back",
                **told,
                version=outcome.version,
                sha256=sha256,
                why=rollback.reason,
            )
            self._tell_release()
        else:
            log.error("row %d: NOT rolled back to %s: %s", kept.row, restores, outcome.detail)
            self.events.write("rollback_refused", **told, detail=outcome.detail)
        self.last_told.raise_to(kept.row)

    def _rolled_back(self, kept: JournalRow, rollback: Rollback) -> Outcome:
        forged = self._forged(kept)
        if forged:
            return Outcome("refused", self.coordinator.version, 0, detail=forged)
        try:
            return self.coordinator.roll_back(rollback)
        except Exception as bug:  # as in `_judge`
            log.exception("row %d of the journal cannot be judged", kept.row)
            version = self.coordinator.version
            return Outcome("refused", version, 0, Refusal.BUG, f"{type(bug).__name__}: {bug}")

    def _forged(self, kept: JournalRow) -> str:
        """Why this row was not written by whoever holds the server's key; empty if it was."""
        try:
            key = OneKey(self.config.fleet, self.config.state / f"{SERVER}.pub")
            wire.decode(kept.frame, key, sender=SERVER)
        except (IdentityError, wire.WireError) as forged:
            return str(forged)
        return ""

    def _ban(self, kept: JournalRow, asked: Ban) -> None:
        """As whoever holds the server's key has asked for in this row."""
        forged = self._forged(kept)
        if not forged:
            self.coordinator.ban(asked)
            ban.write_down(self.config.state, self.coordinator.banned)
        if kept.row <= self.told:
            return
        about = {"row": kept.row, "vehicle": asked.name}
        if forged:
            log.error("row %d: %s is NOT banned: %s", kept.row, asked.name, forged)
            self.events.write(ban.REFUSED, **about, detail=forged)
            self.last_told.raise_to(kept.row)
            return
        done = ban.DONE if asked.is_banned else ban.LIFTED
        log.warning("row %d: %s %s: %s", kept.row, done, asked.name, asked.reason)
        self.events.write(done, **about, why=asked.reason)
        self.last_told.raise_to(kept.row)

    def _pass_over(self, kept: JournalRow) -> None:
        """A damaged row. Its vehicle sends it again, unless it was counted before and is missing now."""
        log.error("row %d of journal %s is DAMAGED: not counted", kept.row, self.journal.path)
        self.events.write("journal_damaged", damaged_row=kept.row, bytes=len(kept.frame))
        self._begin_generation(f"row {kept.row} of the journal is damaged", kept.row)
        self.journal.drop(kept.row)

    def _next_name(self, past: int = 0) -> str:
        """Raises CheckpointError if the disk does not take that it is given."""
        published = self.coordinator.published
        try:
            return self.names.next([published.generation, *published.former], past=past)
        except OSError as failed:
            raise CheckpointError(
                f"{self.config.generation_path} cannot be written: {failed}"
            ) from failed
        except GenerationError as last:
            raise CheckpointError(f"{self.config.state}: {last}") from last

    def _begin_generation(self, why: str, counted: int, *, past: int = 0) -> None:
        """From here on versions may have other bits than those that went out, so they get another name.

        Rows up to `counted` are counted by that. Raises CheckpointError or RegistryError, with all as it was.
        """
        published, row = self.coordinator.published, self.counted
        was, before = named(published.generation, published.version), published.snapshot()
        published.rename(self._next_name(past))
        self._register(time.time(), row=counted, parent=was)
        try:
            self.counted = counted
            self.saving.keep(counted, self._state())
        except Exception:
            # The row, or whatever it was, has to be met again: nobody may hear of this name yet.
            self.registrar.forget(named(published.generation, published.version))
            published.restore(before)
            self.counted = row
            raise
        self.snapshot = published.whole()
        log.error("generation %s begins at %s: %s", published.generation, was, why)
        self.events.write(
            "generation_began",
            generation=published.generation,
            version=published.version,
            was=was,
            counted_row=counted,
            why=why,
        )

    def _outcome_before(self, row: int) -> Outcome:
        """For a repeat of what was counted so long ago, or before a crash, that nothing is remembered."""
        version = self.coordinator.version
        for kept in self._rows(row - 1, 1):
            if kept.row != row:
                break
            update = _message(kept)
            if update is None:  # its name has to be free for when it comes again
                self.journal.drop(row)
            if isinstance(update, Update):
                if row in self.refused:
                    why = f"refused before: {self.refused[row]}"
                    return Outcome("refused", version, 0, Refusal.EARLIER, why)
                name = (update.vehicle, update.boot, update.sequence)
                # Sums that came after their head are not remembered.
                known = update.codec == closed_form.KIND or self.coordinator.ledger.knows(*name)
                # What is so old that the ledger has forgotten it was counted: it was not refused.
                if known or update.base_version < self.coordinator.ledger.floor:
                    return Outcome("duplicate", version, version - update.base_version)
                return Outcome("refused", version, 0, Refusal.EARLIER, "refused before")
        raise JournalError(f"journal {self.journal.path} has no row {row}")

    def _register(
        self,
        created: float,
        *,
        row: int,
        parent: str | None,
        updates: tuple[Contribution, ...] | None = None,
        **why: str,
    ) -> None:
        """The newest version, for the registry; it is written before the next checkpoint is."""
        published = self.coordinator.published
        record = Record(
            generation=published.generation,
            version=published.version,
            parent=parent,
            sha256=published.sha256.hex(),
            layout=published.layout.fingerprint.hex(),
            num_values=published.layout.size,
            created=created,
            row=row,
            updates=updates,
            config=self.registrar.fingerprint,
            code=code_version(),
            **why,
        )
        self.registrar.add(record, published.layout, published.vector)

    def _state(self) -> dict[str, Any]:
        return {
            "layout": self.coordinator.layout.fingerprint,
            "parts": self.coordinator.layout.parts,
            "older_rows": self.older_rows,
            "settings": self.registrar.fingerprint,
            "coordinator": self.coordinator.snapshot(),
            "refused": dict(self.refused),
        }

    def _tell_release(self) -> None:
        snapshot = self.snapshot
        self.events.write("released", version=snapshot.version, sha256=snapshot.sha256.hex())

    async def wait_for_version(self, than: Order) -> Snapshot:
        """The newest version, once one stands behind `than` (BEFORE_ALL: at once).

        Who names a later version than the newest one has it from this server, as it was before it lost that.
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
            self._begin_generation(why, self.counted, past=number)
        except Exception as failed:  # such as a full disk: until it is back
            log.error("no generation is begun: %s", failed)
            await asyncio.sleep(TICK_S)
        await self._tell_waiting()

    async def _tell_waiting(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def announcement(self, than: Order) -> tuple[Snapshot, list[Release]]:
        """As `newer`, with the releases behind `than` that vehicles may ask for, newest last."""
        snapshot = await self.wait_for_version(than)
        return snapshot, self.coordinator.published.later_than(than)

    def _show(self) -> None:
        for name, about, value in (
            ("version", "The newest release.", lambda: self.coordinator.version),
            ("counted_row", "The journal's last row that was counted.", lambda: self.counted),
            ("journal_lag_rows", "Rows kept and not counted yet.", self._lag),
            (
                "buffered_updates",
                "Folded in since the last release.",
                lambda: self.coordinator.aggregator.buffered,
            ),
            (
                "buffer_goal_updates",
                "That make a release.",
                lambda: getattr(self.config.aggregator, "goal", 1),
            ),
            (
                "checkpoint_age_seconds",
                "Since the newest checkpoint was written.",
                lambda: time.monotonic() - self.saving.durable_at,
            ),
            (
                "event_lines_missing",
                "That events.jsonl did not take since it last took one.",
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
        """What it counts and measures."""
        banned = GaugeMetricFamily(
            "fleetfl_banned_vehicle", "1 for each vehicle that is banned.", labels=["vehicle"]
        )
        for vehicle in self.coordinator.banned:
            banned.add_metric([vehicle], 1)
        return [*self.metrics.collected(), banned]

    async def ping(self) -> int:
        """The newest version: the actor is up."""
        return self.coordinator.version


def _log_outcome(update: Update, outcome: Outcome, row: int) -> None:
    if not log.isEnabledFor(logging.INFO):  # thousands come in a second
        return
    if outcome.reason is not None:
        why = f"({outcome.reason.value}): {outcome.detail}"
        log.info("refused %s row=%d %s", log_keys(update), row, why)
    else:
        late = outcome.staleness
        log.info("%s %s row=%d staleness=%d", outcome.verdict, log_keys(update), row, late)


def _message(kept: JournalRow) -> Update | Rollback | Ban | None:
    """None if the row is damaged, or of a format that is no longer read."""
    if not kept.is_whole:
        return None
    try:
        message = wire.open_frame(kept.frame).message
    except wire.WireError:
        return None
    return message if isinstance(message, Update | Rollback | Ban) else None
