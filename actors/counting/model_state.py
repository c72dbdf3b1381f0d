"""The global model after the counted rows: its releases, generations and checkpoints. Reads no row."""

import logging
import time
from typing import Any

from actors.config import ServerConfig
from actors.counting.checkpointer import Checkpointer
from actors.counting.generation_names import GenerationNames
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.deduplication import Contribution
from fleetfl.events.event_log import EventLog
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.registry.release_file import Record, named
from fleetfl.registry.writer import Registrar
from fleetfl.releases.generations import GenerationError
from fleetfl.storage.checkpoints import CheckpointError
from fleetfl.storage.journal import Journal
from fleetfl.version import code_version

log = logging.getLogger(__name__)


def initial_coordinator(config: ServerConfig) -> Coordinator:
    """A Coordinator at release 0 of these settings, without a generation. Raises AdapterFileError."""
    assert config.initial is not None, "cluster.py writes one where the settings name none"
    layout, params = read_adapter(config.initial)
    return Coordinator.from_settings(config, params, layout)


class ModelState:
    """The Coordinator with everything that a checkpoint holds, and the writers of releases and checkpoints.

    It follows from the counted rows alone, so a checkpoint only shortens the replay.
    """

    def __init__(
        self, config: ServerConfig, coordinator: Coordinator, journal: Journal, events: EventLog
    ) -> None:
        self.config, self.coordinator, self.events = config, coordinator, events
        self.names = GenerationNames(config)
        self.registrar = Registrar(config.releases, config.registry, config.recipe())
        self.saving = Checkpointer(config, journal, self.registrar, events)
        self.counted = 0
        """Number of the last counted row."""
        self.older_rows = 0
        """Rows up to this one were kept by an older version, whose updates tell shapes alone; 0 if none."""
        self.refused: dict[int, str] = {}
        """Reasons of the most recent refusals by row; unlike the outcomes they are part of the checkpoint."""
        self.snapshot = coordinator.published.whole()
        """The newest release, whole."""

    def values(self) -> dict[str, Any]:
        """The state after the last counted row as plain values, for a checkpoint."""
        return {
            "layout": self.coordinator.layout.fingerprint,
            "parts": self.coordinator.layout.parts,
            "older_rows": self.older_rows,
            "settings": self.registrar.fingerprint,
            "coordinator": self.coordinator.snapshot(),
            "refused": dict(self.refused),
        }

    def keep(self) -> None:
        """Returns once a checkpoint is on disk. Raises RegistryError or CheckpointError."""
        self.saving.keep(self.counted, self.values())

    def begin(self) -> None:
        """Start at release 0 under a new generation. Raises RegistryError or CheckpointError."""
        # The name is drawn by chance, so nothing that it names may go out before it is on disk.
        self.coordinator.published.rename(self._next_name())
        self.coordinator.published.former.clear()
        self.refresh_snapshot()
        self.register(time.time(), row=0, parent=None)
        self.saving.keep(0, self.values())
        self.log_release()

    def refresh_snapshot(self) -> None:
        """Take the Coordinator's newest version as the one that goes out."""
        self.snapshot = self.coordinator.published.whole()

    def restore(self, row: int, values: Any) -> bool:
        """Take over a checkpoint; gives whether an older version wrote it. Raises CheckpointError."""
        self.counted = self.saving.row = row
        try:
            return self._taken_over(values)
        except CheckpointError:
            raise
        except Exception as odd:  # of a version that wrote something else, or of other settings
            raise CheckpointError(
                f"{self.saving.checkpoints.folder}: the state after row {self.counted} does not fit the "
                f"`server` settings ({type(odd).__name__}: {odd}): put them back as they were, start the "
                "version that wrote it, or start over with --set server.resume=false"
            ) from odd

    def _taken_over(self, values: dict[str, Any]) -> bool:
        """Whether an older version wrote these values. Raises CheckpointError for another model."""
        is_older = self._is_of_an_older_version(values)
        self.older_rows = values.get("older_rows", 0)
        self.coordinator.restore(values["coordinator"])
        self.refused = dict(values.get("refused", {}))
        return is_older

    def _is_of_an_older_version(self, values: dict[str, Any]) -> bool:
        """Whether the checkpoint does not tell what values mean. Raises CheckpointError for another model."""
        ours, folder = self.coordinator.layout, self.saving.checkpoints.folder
        unlike = ours.objection(values["layout"], values.get("parts", b""), ours="the settings'")
        if not unlike:
            return False
        if "parts" not in values and values["layout"] == ours.plain.fingerprint:
            log.warning(
                "%s is of an older version, that did not note classes, backbone and adapter: taken to be "
                "those of the `model` settings",
                folder,
            )
            return True
        raise CheckpointError(f"{folder}: {unlike}; to start over: --set server.resume=false")

    def begin_older_rows(self, newest_row: int) -> None:
        """Note that an older version kept the rows up to `newest_row`, and write a checkpoint of that.

        Raises RegistryError or CheckpointError.
        """
        self.older_rows = max(self.counted, newest_row)
        self.coordinator.last_without_meaning = 2**53
        self.end_older_rows()
        self.keep()

    def end_older_rows(self) -> None:
        """Require that updates state what their values mean, once the rows of an older version are counted.

        Updates that were trained from a version released by then are exempt.
        """
        if self.older_rows and self.counted >= self.older_rows:
            self.coordinator.last_without_meaning = self.coordinator.version
            self.older_rows = 0

    def _next_name(self, past: int = 0) -> str:
        """A generation's name that is recorded on disk as given. Raises CheckpointError if that fails."""
        published = self.coordinator.published
        try:
            return self.names.next([published.generation, *published.former], past=past)
        except OSError as failed:
            raise CheckpointError(
                f"{self.config.generation_path} cannot be written: {failed}"
            ) from failed
        except GenerationError as last:
            raise CheckpointError(f"{self.config.state}: {last}") from last

    def begin_generation(self, why: str, counted: int, *, past: int = 0) -> None:
        """Rename the generation: from here on versions may have other bits than those that went out.

        Rows up to `counted` count as counted afterwards; the new number is higher than `past`. Raises
        CheckpointError or RegistryError, with the state unchanged.
        """
        published, row = self.coordinator.published, self.counted
        was, before = named(published.generation, published.version), published.snapshot()
        published.rename(self._next_name(past))
        self.register(time.time(), row=counted, parent=was)
        try:
            self.counted = counted
            self.keep()
        except Exception:
            # The row, or whatever it was, has to be met again: nobody may hear of this name yet.
            self.registrar.forget(named(published.generation, published.version))
            published.restore(before)
            self.counted = row
            raise
        self.refresh_snapshot()
        log.error("generation %s begins at %s: %s", published.generation, was, why)
        self.events.write(
            "generation_began",
            generation=published.generation,
            version=published.version,
            was=was,
            counted_row=counted,
            why=why,
        )

    def register(
        self,
        created: float,
        *,
        row: int,
        parent: str | None,
        updates: tuple[Contribution, ...] | None = None,
        **why: str,
    ) -> None:
        """Queue the newest version for the registry, which is written before the next checkpoint is.

        `created` is in UTC seconds.
        """
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

    def log_release(self) -> None:
        """Write the event of the newest release."""
        snapshot = self.snapshot
        self.events.write("released", version=snapshot.version, sha256=snapshot.sha256.hex())
