"""Puts the notes of each update together, and decides its outcome. Reads nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fleetfl.trace import Name, Note

LATE = 2.0**60
"""Time later than all dates; its negative stands for an update without a date before any that has one."""


@dataclass(frozen=True)
class Life:
    """All notes of one update: dated ones in their order, then those without a date."""

    name: Name
    notes: tuple[Note, ...]

    @property
    def outcome(self) -> str:
        """`accepted`, `refused`, `expired`, `waiting` or `kept`.

        The server's word counts before the vehicle's: an update may expire there after it was counted here.
        `kept` is an update in the journal of which it is not known how it was judged.
        """
        said = {(note.source == "outbox", note.what) for note in self.notes}
        for ends, outcome in _OUTCOMES:
            if said & ends:
                return outcome
        return "kept"

    @property
    def reason(self) -> str:
        """Reason why the update was refused or expired; empty otherwise."""
        if self.outcome not in ("refused", "expired"):
            return ""
        said = [n.about.get("reason", "") for n in self.notes if n.what == self.outcome]
        return next(filter(None, reversed(said)), "")

    @property
    def release(self) -> str:
        """GENERATION/VERSION that the update went into, or VERSION if only the events tell; empty
        otherwise.
        """
        for source in ("registry", "events"):
            for note in self.notes:
                if note.source == source and note.what == "part of":
                    return str(note.about["release"])
        return ""

    @property
    def at_s(self) -> float | None:
        """Time of the last dated note, UTC seconds; None if no note has a date."""
        return max((note.at_s for note in self.notes if note.at_s is not None), default=None)

    def first(self, field: str) -> Any:
        """The value that the first note with such a field has; None without one."""
        return next((note.about[field] for note in self.notes if field in note.about), None)


_OUTCOMES = (
    (
        {(False, "accepted"), (False, "part of"), (True, "accepted"), (True, "duplicate")},
        "accepted",
    ),
    ({(False, "refused"), (True, "refused")}, "refused"),
    ({(True, "expired")}, "expired"),
    ({(False, "duplicate")}, "accepted"),
    ({(False, "kept")}, "kept"),
    ({(True, "waiting")}, "waiting"),
)


def lives(notes: Iterable[Note]) -> list[Life]:
    """One life for each update, the oldest first as far as dates and the outbox's order tell."""
    by_name: dict[Name, list[Note]] = {}
    for note in notes:
        by_name.setdefault(note.name, []).append(note)
    ordered = [Life(name, tuple(_ordered(found))) for name, found in by_name.items()]
    dates, before = {}, -LATE
    for life in ordered:  # an outbox's are in its order, the newest last
        dated = [note.at_s for note in life.notes if note.at_s is not None]
        before = min(dated) if dated else before
        dates[life.name] = before
    newest = [life for life in ordered if life.outcome == "waiting"]
    others = [life for life in ordered if life.outcome != "waiting"]
    return [*sorted(others, key=lambda life: dates[life.name]), *newest]


def _ordered(notes: Sequence[Note]) -> list[Note]:
    """Notes by date; those without one come last, in the order of their source."""
    dated = sorted((n for n in notes if n.at_s is not None), key=lambda n: n.at_s or 0.0)
    return [*dated, *(n for n in notes if n.at_s is None)]


def row(life: Life) -> dict[str, Any]:
    """Row of a table about one update, ready for JSON."""
    return {
        "update": f"{life.name[0]}/{life.name[1]}",
        "outcome": life.outcome,
        "reason": life.reason,
        "at_s": life.at_s,
        "base": life.first("base"),
        "staleness": life.first("staleness"),
        "release": life.release or None,
        "bytes": life.first("bytes"),
    }


def told(life: Life, vehicle: str) -> dict[str, Any]:
    """All that is known of one update, ready for JSON."""
    notes = [
        {"at_s": n.at_s, "source": n.source, "folder": n.folder, "what": n.what, **n.about}
        for n in life.notes
    ]
    return {"vehicle": vehicle, **row(life), "notes": notes}
