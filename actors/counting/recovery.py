"""Resumes a server from its state folder, and handles damaged or missing journal rows. Judges no update."""

import logging
import time

from actors.config import ServerConfig
from actors.counting.model_state import ModelState
from fleetfl.events.event_log import EventLog
from fleetfl.registry import ban
from fleetfl.storage.high_water import HighWater
from fleetfl.storage.journal import Journal, JournalDamaged, JournalRow
from fleetfl.storage.journal_repair import repair

log = logging.getLogger(__name__)


class Recovery:
    """Reads the journal for a ModelState. Whatever is lost is logged, and begins a new generation."""

    def __init__(
        self,
        config: ServerConfig,
        state: ModelState,
        *,
        journal: Journal,
        events: EventLog,
        last_told: HighWater,
    ) -> None:
        self.config, self.state, self.journal = config, state, journal
        self.events, self.last_told = events, last_told

    def resume(self) -> int:
        """Restore the newest checkpoint, or begin at release 0; gives the row that it is at.

        Raises JournalError, RegistryError or CheckpointError.
        """
        state, checkpoints = self.state, self.state.saving.checkpoints
        found = checkpoints.newest()
        if found is None:
            state.begin()
            return 0
        for damage in checkpoints.set_aside:
            self.events.write("checkpoint_damaged", detail=damage)
        from_row, values = found
        is_older = state.restore(from_row, values)
        ban.write_down(self.config.state, state.coordinator.banned)
        if not self.last_told.is_known:  # a folder from before this file: no event is written twice
            self.last_told.raise_to(from_row)
        state.refresh_snapshot()
        # It is there, and stays as it was made, unless somebody has deleted or damaged it.
        state.register(time.time(), row=from_row, parent=None)
        self._require_all_rows()
        if is_older:
            state.begin_older_rows(self.journal.newest_row())
        settings = values.get("settings", state.registrar.fingerprint)
        if settings != state.registrar.fingerprint and self.journal.newest_row() > state.counted:
            # Those rows may have been counted before, to other bits.
            state.begin_generation("rows are counted again under other settings", state.counted)
        return from_row

    def succeed_restore(self) -> None:
        """Begin a new generation after a restore from a backup: releases made since are unknown here."""
        marker = self.config.restored_path
        if not marker.exists():
            return
        self.state.begin_generation("this state was restored from a backup", self.state.counted)
        marker.unlink(missing_ok=True)

    def rows(self, after: int, limit: int) -> list[JournalRow]:
        """At most `limit` rows past `after`; a damaged journal is repaired first. Raises JournalError."""
        try:
            return self.journal.rows(after, limit)
        except JournalDamaged as damaged:
            self.repair(str(damaged))
            return self.journal.rows(after, limit)

    def repair(self, why: str) -> None:
        """Replace a damaged journal by a sound one with the rows that can be saved. Raises JournalError.

        The checkpoint that follows covers everything counted so far, so no lost row is waited for.
        """
        self.state.saving.is_damage_seen = False
        path = self.journal.path
        made = repair(path, self._last_given())
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
            self.state.keep()
        else:
            self.state.begin_generation("rows of a damaged journal were lost", self.state.counted)

    def pass_over(self, damaged: JournalRow) -> None:
        """Skip a damaged row. Its vehicle sends the update again, unless it was counted before.

        Raises JournalError, RegistryError or CheckpointError.
        """
        log.error("row %d of journal %s is DAMAGED: not counted", damaged.row, self.journal.path)
        self.events.write("journal_damaged", damaged_row=damaged.row, bytes=len(damaged.frame))
        self.state.begin_generation(f"row {damaged.row} of the journal is damaged", damaged.row)
        self.journal.drop(damaged.row)

    def require_no_gap(self, before: int | None) -> None:
        """Log an error and begin a new generation if rows are missing that no trimming explains.

        It looks behind the last row counted; `before` is the next row that is there, None if there is none.
        """
        gap = self.journal.missing(self.state.counted, before)
        if gap is None:
            return
        first, last = gap
        log.error("rows %d to %d of journal %s are MISSING", first, last, self.journal.path)
        self.events.write("journal_rows_missing", first=first, last=last)
        self.state.begin_generation(
            f"rows {first} to {last} of the journal are missing", self.state.counted
        )
        # Last: if the disk is full, the gap has to be met again.
        self.journal.skip(first, last)

    def _require_all_rows(self) -> None:
        """Begin a new generation if counted rows are gone, and give no row number a second time."""
        given = self._last_given()
        try:
            is_whole = self.journal.number_past(given)
        except JournalDamaged as damaged:
            self.repair(str(damaged))
            is_whole = self.journal.number_past(given)
        if not is_whole:
            path = self.journal.path
            log.error("journal %s was LOST, all or its end: goes on past row %d", path, given)
            self.events.write("journal_lost", counted=given)
            self.state.begin_generation("the journal was lost, all or its end", self.state.counted)

    def _last_given(self) -> int:
        """The highest row number that is known to have been in the journal."""
        return max(self.state.counted, self.last_told.number)
