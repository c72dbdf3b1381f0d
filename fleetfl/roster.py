"""What the vehicles of a fleet last said of themselves. Knows no clock and no broker."""

from dataclasses import dataclass, field, replace

import msgspec

from fleetfl.messages import Status

MOST = 100_000
"""Vehicles known at a time; beyond, the one that was silent longest is forgotten."""


@dataclass(frozen=True)
class Sighting:
    """A vehicle's newest status and when it was last heard."""

    status: Status
    heard_at: float | None = None
    """UTC seconds; None if all that is known was kept by the broker from before."""


@dataclass
class Roster:
    """The newest sighting of each vehicle, the longest silent first."""

    sightings: dict[str, Sighting] = field(default_factory=dict)

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
        self._put(Sighting(status, before if retained else at))

    def hear(self, vehicle: str, *, at: float) -> None:
        """Any other sign of life, such as an update."""
        known = self.sightings.get(vehicle)
        if known is not None:
            self._put(replace(known, heard_at=at))

    def _put(self, sighting: Sighting) -> None:
        self.sightings.pop(sighting.status.vehicle, None)
        self.sightings[sighting.status.vehicle] = sighting
        if len(self.sightings) > MOST:
            del self.sightings[next(iter(self.sightings))]
