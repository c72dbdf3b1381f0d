"""Checkpoints beside the counting: when one is due, and in which order things reach the disk.

Knows no Coordinator: what is saved is a row's number and plain values.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from actors.config import ServerConfig
from fleetfl.events.event_log import EventLog
from fleetfl.registry.writer import Registrar
from fleetfl.storage.checkpoints import Checkpoints
from fleetfl.storage.journal import Journal, JournalDamaged

log = logging.getLogger(__name__)


class Checkpointer:
    """Writes the releases up to a row of the journal, then the state after it, then trims the journal.

    The order matters, as a replay from a checkpoint does not make the releases before it again.
    """

    def __init__(
        self, config: ServerConfig, journal: Journal, registrar: Registrar, events: EventLog
    ) -> None:
        self.config, self.journal, self.registrar, self.events = config, journal, registrar, events
        self.checkpoints = Checkpoints(config.checkpoint_folder)
        self.row = 0
        """Row of the newest checkpoint that is written or under way; -1 after a failure."""
        self.began_at = self.durable_at = time.monotonic()
        """Monotonic seconds at which a checkpoint was last begun, and was last on disk."""
        self.is_damage_seen = False
        """Trimming found the journal's file damaged."""
        self.one_at_a_time = threading.Lock()
        self.task: asyncio.Task[None] | None = None

    def keep(self, row: int, state: dict[str, Any]) -> None:
        """Returns once releases and checkpoint are on disk. Raises RegistryError or CheckpointError."""
        with self.one_at_a_time:
            self.registrar.flush()
            self.checkpoints.write(row, state)

    def if_due(self, row: int, state: Callable[[], dict[str, Any]]) -> None:
        """Begin a checkpoint in a thread, unless one is under way, began just now, or nothing is new."""
        if self.task is not None and not self.task.done():
            return
        if not self.is_behind(row):
            return
        if time.monotonic() - self.began_at < self.config.checkpoint_s:
            return
        self.began_at, self.row = time.monotonic(), row
        save = asyncio.to_thread(self._save, row, state())
        self.task = asyncio.create_task(save, name="aggregator.save")

    def is_behind(self, row: int) -> bool:
        """Whether no checkpoint has this row, or a release waits to be written."""
        return row != self.row or bool(self.registrar.waiting)

    def try_keep(self, row: int, state: dict[str, Any]) -> None:
        """Write the last checkpoint before the end; a failure is logged, as a replay makes up for it."""
        try:
            self.keep(row, state)
            self.row = row
        except Exception as failed:  # as in `_save`
            log.error("no checkpoint at row %d, the last one: %s", row, failed)

    async def ended(self) -> None:
        """Wait until the checkpoint under way is written or has failed."""
        if self.task is not None:
            await self.task

    def _save(self, row: int, state: dict[str, Any]) -> None:
        try:
            self.keep(row, state)
            self.durable_at = time.monotonic()
            self.journal.trim(self.checkpoints.safe_row, self.config.journal)
        except Exception as failed:  # one of ours, or whatever a thread may raise unheard
            # Nothing is lost: the rows stay, and the next one covers them too.
            log.error("no checkpoint at row %d: %s", row, failed)
            self.row = -1
            self.is_damage_seen = isinstance(failed, JournalDamaged)
            self.events.write("checkpoint_failed", detail=str(failed))
