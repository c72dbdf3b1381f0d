"""Account of every update by three records: the vehicle's outbox, the receipts, and the journal."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fleetfl.protocol.messages import SIGNATURE

Name = tuple[str, str, int]
"""Identity of an update: vehicle, boot, sequence number."""
Verdicts = dict[Name, set[str]]
"""Verdicts of the receipts for each update."""

COUNTS = {"accepted", "duplicate"}
"""Verdicts by which the server promises that an update is in the model."""


@dataclass(frozen=True)
class Entry:
    """One update in a vehicle's own record."""

    number: int
    """Number of the update in order of production."""
    name: Name
    verdict: str | None
    """Final outcome by the vehicle's own record; None while the update waits."""


@dataclass(frozen=True)
class Ledger:
    """Records of one run, and the updates for which they contradict each other."""

    outcomes: dict[Name, str | None]
    """Final outcome of every update that entered a vehicle's outbox, by the vehicle's own record."""
    receipts: Verdicts
    """Verdicts of the receipts that reached the update's vehicle."""
    counted: set[Name]
    """Updates in the model: those that a replay of the journal from its first row accepts."""
    accepted_rows: dict[Name, set[int]] = field(default_factory=dict)
    """Journal rows that the server reported as accepted, for each update."""

    after_backup: set[Name] = field(default_factory=set)
    """Updates that a lost host had accepted after the backup that was restored."""

    @property
    def lost(self) -> set[Name]:
        """Updates reported as accepted that are not in the model, and that no lost host explains."""
        return self._missing - self.after_backup

    @property
    def lost_with_host(self) -> set[Name]:
        """Updates reported as accepted after the restored backup was begun, and lost with the host."""
        return self._missing & self.after_backup

    @property
    def _missing(self) -> set[Name]:
        told = {name for name, verdicts in self.receipts.items() if verdicts & COUNTS}
        told |= {name for name, end in self.outcomes.items() if end in COUNTS}
        return told - self.counted

    @property
    def counted_twice(self) -> set[Name]:
        """Updates in two journal rows, or in one although their vehicle believes them refused.

        A vehicle trains what was refused into a later update, so such an update would count twice. An
        expired update may be in the model: its vehicle had sent it, and drops it for good.
        """
        in_two_rows = {name for name, rows in self.accepted_rows.items() if len(rows) > 1}
        refused = {name for name, end in self.outcomes.items() if end == "refused"}
        return in_two_rows | (refused & self.counted)

    @property
    def unresolved(self) -> set[Name]:
        """Updates without a final outcome at their vehicle: not accepted, refused or expired."""
        return {name for name, end in self.outcomes.items() if end is None}

    @property
    def unheard_of(self) -> set[Name]:
        """Updates in the model that no vehicle's record contains."""
        return self.counted - set(self.outcomes)


def verdicts(receipts: Iterable[dict], vehicle: str) -> Verdicts:
    """Verdicts by update, from the receipts that one vehicle recorded."""
    found: Verdicts = {}
    for receipt in receipts:
        if receipt["reason"] != SIGNATURE:  # after which the vehicle keeps it
            name = (vehicle, receipt["boot"], receipt["sequence"])
            found.setdefault(name, set()).add(receipt["verdict"])
    return found


def accepted_rows(events: Iterable[dict]) -> dict[Name, set[int]]:
    """Journal rows by update, from the server's events; after a crash one row may be reported twice."""
    found: dict[Name, set[int]] = {}
    for event in events:
        if event["event"] == "accepted":
            name = (event["vehicle"], event["boot"], event["sequence"])
            found.setdefault(name, set()).add(event["row"])
    return found


def split_by_host(lost: Iterable[tuple[list[dict], int]]) -> tuple[list[dict], list[dict]]:
    """Split the events of lost hosts into those still true after the restore and those undone by it.

    `lost` has, for each host, its events and the last journal row in the backup that replaced it.
    """
    valid: list[dict] = []
    gone: list[dict] = []
    for events, newest_row in lost:
        # A later backup may come from a host that had itself been restored.
        kept = [event for event in [*valid, *events] if _row(event) <= newest_row]
        gone += [event for event in [*valid, *events] if _row(event) > newest_row]
        valid = kept
    return valid, gone


def _row(event: dict) -> int:
    return event.get("row", event.get("counted_row", 0))
