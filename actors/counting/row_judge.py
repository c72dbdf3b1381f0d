"""Applies one row of the journal after the other: updates, rollbacks and bans. Repairs nothing itself."""

import logging

from actors.config import ServerConfig
from actors.counting.model_state import ModelState
from actors.counting.recovery import Recovery
from fleetfl import closed_form
from fleetfl.coordination.outcome import Outcome, Refusal, judged
from fleetfl.events.event_log import EventLog
from fleetfl.protocol import wire
from fleetfl.protocol.log_keys import log_keys
from fleetfl.protocol.messages import SERVER, Ban, Rollback, Update
from fleetfl.protocol.signing import IdentityError, OneKey
from fleetfl.registry import ban
from fleetfl.registry.release_file import named
from fleetfl.storage.high_water import HighWater
from fleetfl.storage.journal import JournalError, JournalRow

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Outcomes kept in memory for callers that ask again."""


class RowJudge:
    """Counts rows on a ModelState; the events of a row are written once, also over a replay."""

    def __init__(
        self,
        config: ServerConfig,
        state: ModelState,
        recovery: Recovery,
        *,
        events: EventLog,
        last_told: HighWater,
    ) -> None:
        self.config, self.state, self.recovery = config, state, recovery
        self.coordinator = state.coordinator
        self.events, self.last_told = events, last_told
        self.outcomes: dict[int, Outcome] = {}

    def count(self, limit: int) -> int:
        """Count at most `limit` further rows of the journal; gives how many. Raises JournalError."""
        rows = self.recovery.rows(self.state.counted, limit)
        for kept in rows:
            if kept.row > self.state.counted + 1:
                self.recovery.require_no_gap(kept.row)
            message = _message(kept)
            if message is None:
                self.recovery.pass_over(kept)
            elif isinstance(message, Rollback):
                self._roll_back(kept, message)
                self.state.counted = kept.row
            elif isinstance(message, Ban):
                self._ban(kept, message)
                self.state.counted = kept.row
            else:
                self._judge(kept, message)
                self.state.counted = kept.row
            self.state.end_older_rows()
        return len(rows)

    def outcome(self, row: int) -> Outcome:
        """The outcome of the update in a counted row. Raises JournalError if the row is not there."""
        return self.outcomes.get(row) or self._forgotten_outcome(row)

    def _is_told(self, row: int) -> bool:
        """Whether the events up to this row were written before."""
        return row <= self.last_told.number

    def _judge(self, kept: JournalRow, update: Update) -> None:
        outcome = self._submitted(kept, update)
        self._remember(kept.row, outcome)
        if outcome.released:
            self.state.refresh_snapshot()
            self.state.register(
                kept.kept_at,
                row=kept.row,
                parent=self._version_before(),
                updates=self.coordinator.made_of,
            )
        if self._is_told(kept.row):
            return
        _log_outcome(update, outcome, kept.row)
        event, about = judged(update, outcome, num_bytes=len(kept.frame), row=kept.row)
        self.events.write(event, **about)
        if outcome.released:
            self.state.log_release()
        self.last_told.raise_to(kept.row)

    def _submitted(self, kept: JournalRow, update: Update) -> Outcome:
        """The Coordinator's outcome; a bug in it refuses the one update."""
        try:
            return self.coordinator.submit(update, at_s=kept.kept_at)
        except Exception as bug:  # else no row after this one would ever be counted
            log.exception("row %d of the journal cannot be judged: %s", kept.row, log_keys(update))
            return self._refused_by(bug)

    def _refused_by(self, bug: Exception) -> Outcome:
        why = f"{type(bug).__name__}: {bug}"
        return Outcome("refused", self.coordinator.version, 0, Refusal.BUG, why)

    def _remember(self, row: int, outcome: Outcome) -> None:
        """Keep the outcome in memory, and a refusal's reason for the checkpoint; the oldest go."""
        self.outcomes[row] = outcome
        if len(self.outcomes) > REMEMBERED:
            del self.outcomes[next(iter(self.outcomes))]
        refused = self.state.refused
        if outcome.reason is not None:
            refused[row] = outcome.reason.value
            if len(refused) > REMEMBERED:
                del refused[next(iter(refused))]

    def _version_before(self) -> str:
        """Name of the version before the newest one."""
        newest = self.state.snapshot
        return named(newest.generation, newest.version - 1)

    def _roll_back(self, kept: JournalRow, rollback: Rollback) -> None:
        """Publish an older version as the next one, if the server's key has signed this row."""
        outcome = self._rolled_back(kept, rollback)
        restores = named(rollback.generation, rollback.version)
        if outcome.released:
            self.state.refresh_snapshot()
            self.state.register(
                kept.kept_at,
                row=kept.row,
                parent=self._version_before(),
                updates=(),
                restores=restores,
                reason=rollback.reason,
            )
        if self._is_told(kept.row):
            return
        told = {"row": kept.row, "restores": restores}
        if outcome.released:
            sha256 = self.state.snapshot.sha256.hex()
            log.warning("row %d: rolled back to %s as %d", kept.row, restores, outcome.version)
            self.events.write(
                "rolled_back",
                **told,
                version=outcome.version,
                sha256=sha256,
                why=rollback.reason,
            )
            self.state.log_release()
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
        except Exception as bug:  # else no row after this one would ever be counted
            log.exception("row %d of the journal cannot be judged", kept.row)
            return self._refused_by(bug)

    def _ban(self, kept: JournalRow, asked: Ban) -> None:
        """Ban a vehicle or lift its ban, if the server's key has signed this row."""
        forged = self._forged(kept)
        if not forged:
            self.coordinator.ban(asked)
            ban.write_down(self.config.state, self.coordinator.banned)
        if self._is_told(kept.row):
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

    def _forged(self, kept: JournalRow) -> str:
        """Why the server's key has not signed this row; empty if it has."""
        try:
            key = OneKey(self.config.fleet, self.config.state / f"{SERVER}.pub")
            wire.decode(kept.frame, key, sender=SERVER)
        except (IdentityError, wire.WireError) as forged:
            return str(forged)
        return ""

    def _forgotten_outcome(self, row: int) -> Outcome:
        """The outcome of a row that was counted so long ago, or before a crash, that memory has none.

        Raises JournalError if the row is not there or damaged.
        """
        for kept in self.recovery.rows(row - 1, 1):
            if kept.row != row:
                break
            update = _message(kept)
            if update is None:  # its name has to be free for when it comes again
                self.recovery.journal.drop(row)
            if isinstance(update, Update):
                return self._outcome_of_repeat(row, update)
        raise JournalError(f"journal {self.recovery.journal.path} has no row {row}")

    def _outcome_of_repeat(self, row: int, update: Update) -> Outcome:
        """`duplicate` if the update was counted, else `refused`."""
        version, ledger = self.coordinator.version, self.coordinator.ledger
        if row in self.state.refused:
            why = f"refused before: {self.state.refused[row]}"
            return Outcome("refused", version, 0, Refusal.EARLIER, why)
        name = (update.vehicle, update.boot, update.sequence)
        # Sufficient statistics that came after their head are not remembered.
        known = update.codec == closed_form.KIND or ledger.knows(*name)
        # What is so old that the ledger has forgotten it was counted: it was not refused.
        if known or update.base_version < ledger.floor:
            return Outcome("duplicate", version, version - update.base_version)
        return Outcome("refused", version, 0, Refusal.EARLIER, "refused before")


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
    """The row's message; None if the row is damaged, or of a format that is no longer read."""
    if not kept.is_whole:
        return None
    try:
        message = wire.open_frame(kept.frame).message
    except wire.WireError:
        return None
    return message if isinstance(message, Update | Rollback | Ban) else None
