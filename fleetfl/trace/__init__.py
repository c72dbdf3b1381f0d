"""Traces the life of an update from the state folders of a server, a vehicle, or both.

A folder's reader is an entry point of the group `fleetfl.trace`: called with a folder, it gives a `Side`, or
None for a folder of another kind. Nothing here writes, or locks what a running process writes to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from fleetfl import FleetflError

GROUP = "fleetfl.trace"
Name = tuple[str, int]
"""Name of a vehicle's update: (boot, sequence)."""


class TraceError(FleetflError, ValueError):
    """A folder, vehicle or update that is not there; names what there is."""


@dataclass(frozen=True)
class Note:
    """One fact about one update from one source."""

    name: Name
    source: str
    """Source of the fact: `outbox`, `journal`, `events` or `registry`."""
    what: str
    """The fact in a word: `waiting`, `kept`, `accepted`, `duplicate`, `refused`, `expired`, `part of`."""
    folder: str
    at_s: float | None = None
    """Time of the fact, UTC seconds; None where it is not known."""
    about: dict[str, Any] = field(default_factory=dict)


class Side(Protocol):
    """Reader of one state folder."""

    folder: Path

    def vehicles(self) -> list[str]:
        """Names of the vehicles known in the folder; empty if it does not say whose it is."""
        ...

    def notes(self, vehicle: str) -> list[Note]:
        """All facts about the vehicle's updates, in the order in which they were written."""
        ...


def side_of(folder: Path) -> Side:
    """The reader of this folder. Raises TraceError for what is no state folder."""
    if not folder.is_dir():
        raise TraceError(
            f"{folder} is no folder" if folder.exists() else f"{folder} does not exist"
        )
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        side = point.load()(folder)
        if side is not None:
            return side
    raise TraceError(
        f"{folder} is the state folder neither of a server (events.jsonl, journal, registry) "
        "nor of a vehicle (outbox.db)"
    )


def notes_of(sides: Sequence[Side], vehicle: str) -> list[Note]:
    """Facts from all sides about the vehicle's updates. Raises TraceError for an unknown vehicle."""
    from fleetfl.trace.names import unknown_vehicle

    found = [note for side in sides for note in side.notes(vehicle)]
    if found:
        return found
    known = sorted({name for side in sides for name in side.vehicles()})
    raise TraceError(unknown_vehicle(vehicle, known, [side.folder for side in sides]))
