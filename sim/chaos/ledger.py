"""What became of every update, from three sides: its vehicle, the receipts, and the model."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fleetfl.protocol.messages import SIGNATURE

Name = tuple[str, str, int]
"""Vehicle, boot, sequence."""
Verdicts = dict[Name, set[str]]

COUNTS = {"accepted", "duplicate"}
"""Verdicts that promise a vehicle that its update is in the model."""


@dataclass(frozen=True)
class Entry:
    """One line of a vehicle's own record."""

    number: int
    """They are numbered in the order of production."""
    name: Name
    verdict: str | None
    """How it ended; None while it waits."""


@dataclass(frozen=True)
class Ledger:
    outcomes: dict[Name, str | None]
    """Every update that came into a vehicle's outbox, with its end by the vehicle's own record."""
    receipts: Verdicts
    """Verdicts of the receipts that reached its vehicle."""
    counted: set[Name]
    """What is in the model: accepted when the journal is counted from its first row."""
    accepted_rows: dict[Name, set[int]] = field(default_factory=dict)
    """Rows of the journal that the server said it counted under this name."""

    after_backup: set[Name] = field(default_factory=set)
    """What a host that was lost had counted behind the backup that was put back."""

    @property
    def lost(self) -> set[Name]:
        """Its vehicle was told that it counts, and it does not, though no lost host explains that."""
        return self._missing - self.after_backup

    @property
    def lost_with_host(self) -> set[Name]:
        """Its vehicle was told that it counts, after the backup was begun that was put back."""
        return self._missing & self.after_backup

    @property
    def _missing(self) -> set[Name]:
        told = {name for name, verdicts in self.receipts.items() if verdicts & COUNTS}
        told |= {name for name, end in self.outcomes.items() if end in COUNTS}
        return told - self.counted

    @property
    def counted_twice(self) -> set[Name]:
        """In two rows; or in one and, as its vehicle took it for refused, in a later update again.

        One that expired may be counted: its vehicle had sent it, and drops it for good.
        """
        in_two_rows = {name for name, rows in self.accepted_rows.items() if len(rows) > 1}
        refused = {name for name, end in self.outcomes.items() if end == "refused"}
        return in_two_rows | (refused & self.counted)

    @property
    def unresolved(self) -> set[Name]:
        """Produced, and neither counted, refused for a reason nor expired, as far as its vehicle knows."""
        return {name for name, end in self.outcomes.items() if end is None}

    @property
    def unheard_of(self) -> set[Name]:
        """Counted, and no vehicle made it."""
        return self.counted - set(self.outcomes)


def verdicts(receipts: Iterable[dict], vehicle: str) -> Verdicts:
    """By update, of one vehicle's receipts as it wrote them down."""
    found: Verdicts = {}
    for receipt in receipts:
        if receipt["reason"] != SIGNATURE:  # after which the vehicle keeps it
            name = (vehicle, receipt["boot"], receipt["sequence"])
            found.setdefault(name, set()).add(receipt["verdict"])
    return found


def accepted_rows(events: Iterable[dict]) -> dict[Name, set[int]]:
    """By update, of the server's events. One row may be told twice, after a crash in between."""
    found: dict[Name, set[int]] = {}
    for event in events:
        if event["event"] == "accepted":
            name = (event["vehicle"], event["boot"], event["sequence"])
            found.setdefault(name, set()).add(event["row"])
    return found


def split_by_host(lost: Iterable[tuple[list[dict], int]]) -> tuple[list[dict], list[dict]]:
    """Events of hosts that were lost: those that still hold after the restore, and those that do not.

    `lost` has each host's events and the last row of the journal in the backup that followed it.
    """
    valid: list[dict] = []
    gone: list[dict] = []
    for events, newest_row in lost:
        # A later backup may be of a host that had itself been restored.
        kept = [event for event in [*valid, *events] if _row(event) <= newest_row]
        gone += [event for event in [*valid, *events] if _row(event) > newest_row]
        valid = kept
    return valid, gone


def _row(event: dict) -> int:
    return event.get("row", event.get("counted_row", 0))
