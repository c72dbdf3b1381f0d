"""What the vehicles of a fleet last said of themselves. Knows no clock and no broker."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from fleetfl.protocol.messages import MAX_NOTE, Status

MOST = 100_000
"""Vehicles known at a time; beyond, the one that was silent longest is forgotten."""
MOST_BYTES = 128 * 2**20
"""Of what they said, all together; beyond, as above."""
BYTES_A_KIND = 72
"""Of a kind of end beside its name: its number, and their place."""
MOST_REFUSED = 1_000
"""Names known that are not believed; beyond, the first of them is forgotten. Strangers choose these."""


@dataclass(frozen=True)
class VehicleStatus:
    """A vehicle's newest status and when it was last heard."""

    status: Status
    heard_at: float | None = None
    """UTC seconds; None if all that is known was kept by the broker from before."""
    refused: str = ""
    """Why the last that came in its name was not believed; empty if it was."""

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
    """Which statuses are worth a line: those that say something new, and of the others one now and then."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.written: dict[str, tuple[tuple[str, str, str], int, float]] = {}
        """By vehicle: what its last line said, with which version, and when; the longest silent first."""

    def is_due(self, status: Status, *, at: float) -> bool:
        """Whether to write this one; it then counts as written. `at` is in seconds, and may jump."""
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
    """The newest sighting of each vehicle, the longest silent first."""

    sightings: dict[str, VehicleStatus] = field(default_factory=dict)
    num_bytes: int = 0
    """Of what they said."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why what came in a name was not believed, by name."""

    def refuse(self, vehicle: str, why: str) -> None:
        """What came in this name is not believed."""
        if vehicle not in self.refused and len(self.refused) >= MOST_REFUSED:
            del self.refused[next(iter(self.refused))]
        self.refused[vehicle] = why[:MAX_NOTE]

    def believe(self, vehicle: str) -> None:
        """What came in this name is believed."""
        self.refused.pop(vehicle, None)

    def shown(self, listed: Iterable[str] = ()) -> dict[str, VehicleStatus]:
        """All that is known by name: the vehicles, those that are refused, and those only `listed`."""
        found = dict(self.sightings)
        for name in (*listed, *self.refused):
            found.setdefault(name, VehicleStatus(_unheard(name)))
        return found | {n: replace(found[n], refused=why) for n, why in self.refused.items()}

    def note(self, status: Status, *, at: float, retained: bool = False) -> None:
        """A status that came at `at`; `retained` if the broker only kept it."""
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
        """Any other sign of life, such as an update."""
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
    """Of what is as long as its vehicle wants."""
    return len(status.note) + sum(BYTES_A_KIND + len(kind) for kind in status.outcomes)
