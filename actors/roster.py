"""The last known status of each vehicle of a fleet. Knows no clock and no broker."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from fleetfl.protocol.messages import MAX_NOTE, Status

MOST = 100_000
"""Vehicles known at a time; beyond, the one that was silent longest is forgotten."""
MOST_BYTES = 128 * 2**20
"""Bytes of all statuses together; above it the vehicle that was silent longest is forgotten."""
BYTES_A_KIND = 72
"""Bytes of memory for one kind of outcome of a vehicle, beside the kind's name."""
MOST_REFUSED = 1_000
"""Names with refused messages that are remembered; strangers choose these, so the oldest are forgotten."""


@dataclass(frozen=True)
class VehicleStatus:
    """A vehicle's newest status and when it was last heard."""

    status: Status
    heard_at: float | None = None
    """UTC seconds; None if only a status retained by the broker is known."""
    refused: str = ""
    """Why the last message in the vehicle's name failed verification; empty if it did not."""

    @property
    def state(self) -> str:
        """`online` or `offline` by its last word; `refused`, or `unheard` if it never said one."""
        if self.refused:
            return "refused"
        return self.status.state if self.status.boot else "unheard"


def _unheard(vehicle: str) -> Status:
    return Status(vehicle, "", "offline", -1, 0, 0, 0, "")


VERSION_S = 30.0
"""Seconds at least between two lines of a vehicle that differ in the version that it holds alone."""


class StatusDiary:
    """Decides which statuses are logged: those that report something new, and a repeat now and then."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.written: dict[str, tuple[tuple[str, str, str], int, float]] = {}
        """Content, version and time of each vehicle's last line; the longest silent vehicle is first."""

    def is_due(self, status: Status, *, at: float) -> bool:
        """Whether to log this status, which then counts as logged. `at` is in UTC seconds, and may jump."""
        about = (status.boot, status.state, status.note)
        said, version, since = self.written.pop(status.vehicle, (None, -1, 0.0))
        patience_s = self.every_s if status.version == version else min(VERSION_S, self.every_s)
        is_due = said != about or not 0 <= at - since < patience_s
        last = (about, status.version, at) if is_due else (about, version, since)
        self.written[status.vehicle] = last
        if len(self.written) > MOST:
            del self.written[next(iter(self.written))]
        return is_due


@dataclass
class VehicleDirectory:
    """The newest status of each vehicle, the longest silent one first."""

    sightings: dict[str, VehicleStatus] = field(default_factory=dict)
    num_bytes: int = 0
    """Bytes of all statuses together."""
    refused: dict[str, str] = field(default_factory=dict)
    """Reasons why messages failed verification, by the vehicle name that they carried."""

    def refuse(self, vehicle: str, why: str) -> None:
        """Note that a message in this vehicle's name failed verification."""
        if vehicle not in self.refused and len(self.refused) >= MOST_REFUSED:
            del self.refused[next(iter(self.refused))]
        self.refused[vehicle] = why[:MAX_NOTE]

    def believe(self, vehicle: str) -> None:
        """Note that a message in this vehicle's name was verified."""
        self.refused.pop(vehicle, None)

    def shown(self, listed: Iterable[str] = ()) -> dict[str, VehicleStatus]:
        """Statuses by name of all vehicles: those heard, those refused, and those only `listed`."""
        found = dict(self.sightings)
        for name in (*listed, *self.refused):
            found.setdefault(name, VehicleStatus(_unheard(name)))
        return found | {n: replace(found[n], refused=why) for n, why in self.refused.items()}

    def note(self, status: Status, *, at: float, retained: bool = False) -> None:
        """Take a status that came at `at` (UTC seconds); `retained` if the broker had kept it."""
        known = self.sightings.get(status.vehicle)
        if known is not None and status.state == "offline":
            if known.status.boot != status.boot and known.status.state == "online":
                return  # the last will of a process that another one has replaced
            if known.status.boot == status.boot and status.version < 0:
                # The will was written when the vehicle connected: it said more since.
                status = msgspec.structs.replace(known.status, state="offline")
        before = None if known is None else known.heard_at
        self._put(VehicleStatus(status, before if retained else at))

    def hear(self, vehicle: str, *, at: float) -> None:
        """Note any other sign of life, such as an update, at `at` (UTC seconds)."""
        known = self.sightings.get(vehicle)
        if known is not None:
            self._put(replace(known, heard_at=at))

    def _put(self, sighting: VehicleStatus) -> None:
        self._drop(sighting.status.vehicle)
        self.sightings[sighting.status.vehicle] = sighting
        self.num_bytes += _said_bytes(sighting.status)
        while len(self.sightings) > MOST or self.num_bytes > MOST_BYTES:
            self._drop(next(iter(self.sightings)))

    def _drop(self, vehicle: str) -> None:
        known = self.sightings.pop(vehicle, None)
        if known is not None:
            self.num_bytes -= _said_bytes(known.status)


def _said_bytes(status: Status) -> int:
    """Memory of the parts of a status whose length the vehicle chooses."""
    return len(status.note) + sum(BYTES_A_KIND + len(kind) for kind in status.outcomes)
