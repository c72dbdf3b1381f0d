"""How often one vehicle may report: no farther ahead of all others together than a few updates.

Updates beyond their vehicle's share of a step weigh nothing (`influence.py`), but each still counts
toward the goal. A flood of them would make versions until everybody else's updates are stale, and its vehicle
would then be the only one. So an accepted update takes one of its vehicle's places; a place comes back with
every update that another vehicle reports, counted or not, and with time. Who has no place left is refused
until then.

Decided from rows and their times alone, so a replay decides alike.
"""

from collections import OrderedDict
from dataclasses import astuple, dataclass
from typing import Any

from fleetfl import FleetflError

QUORUM = 3
"""Vehicles from which on nobody has to be let ahead because there is nobody else."""
REFILL_S = 3600.0
"""Seconds in which all places come back where nobody else reports: who is left alone goes on, slowly."""


class TooFarAheadError(FleetflError, ValueError):
    """A vehicle has no place left: other vehicles have to report first."""


@dataclass(frozen=True)
class Taken:
    """How a vehicle stood after its newest report."""

    places: float
    number: int
    """Reports of all vehicles by then."""
    at_s: float
    """When its update was kept, UTC seconds; 0 if that is not known."""


class Pace:
    """Remembers who took places and has not got them back: at most `ahead` vehicles."""

    def __init__(self, ahead: int | None) -> None:
        """`ahead` is each vehicle's number of places; None lets everybody report as often as they like."""
        self.ahead = ahead
        self.number = 0
        """Reports of all vehicles, refused ones too."""
        self.heard: list[str] = []
        """The first QUORUM vehicles that reported."""
        self.newest: OrderedDict[str, Taken] = OrderedDict()
        """The vehicle that reported last is last."""

    def require_place(self, vehicle: str, at_s: float = 0.0) -> None:
        """Raises TooFarAheadError if the vehicle's update, kept at `at_s` (UTC), has to wait for others."""
        taken = self._taken(vehicle, at_s)
        if self.ahead is not None and taken + 1 > self.ahead and len(self.heard) >= QUORUM:
            raise TooFarAheadError(
                f"{vehicle} is {taken:.3g} updates ahead of all other vehicles together, expected at most"
                f" {self.ahead - 1} before another one: others have to report first"
            )

    def reported(self, vehicle: str, at_s: float = 0.0, *, is_accepted: bool) -> None:
        """Take the place of an update that was accepted; give all others one back in any case."""
        if self.ahead is None:
            return
        places = min(self._taken(vehicle, at_s) + is_accepted, self.ahead)
        self.number += 1
        if len(self.heard) < QUORUM and vehicle not in self.heard:
            self.heard.append(vehicle)
        self.newest.pop(vehicle, None)
        self.newest[vehicle] = Taken(places, self.number, at_s)
        while next(iter(self.newest.values())).number <= self.number - self.ahead:
            self.newest.popitem(last=False)  # it has all of its places again

    def _taken(self, vehicle: str, at_s: float) -> float:
        known = self.newest.get(vehicle)
        if known is None or self.ahead is None:
            return 0.0
        others = self.number - known.number
        passed = max(0.0, at_s - known.at_s) / REFILL_S if known.at_s else 0.0
        return max(0.0, known.places - others - passed * self.ahead)

    def snapshot(self) -> dict[str, Any]:
        """State that `restore` needs to decide on as if never stopped."""
        newest = [(vehicle, *astuple(taken)) for vehicle, taken in self.newest.items()]
        return {"number": self.number, "heard": [*self.heard], "newest": newest}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of `snapshot`."""
        self.number, self.heard = state["number"], [*state["heard"]]
        self.newest = OrderedDict((name, Taken(*taken)) for name, *taken in state["newest"])
