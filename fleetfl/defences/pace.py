"""Bounds how often one vehicle may report: only a few updates ahead of all others together.

Updates beyond their vehicle's share of a step weigh nothing (`influence.py`), but each still counts
toward the goal. A flood of them would make versions until everybody else's updates are stale, and its vehicle
would then be the only one. So an accepted update takes one of its vehicle's places; a place comes back with
every update that another vehicle reports, counted or not, and with time. A vehicle without a place left is
refused until then.

Decisions follow from journal rows and their times alone, so a replay decides alike.
"""

from collections import OrderedDict
from dataclasses import astuple, dataclass
from typing import Any

from fleetfl import FleetflError

QUORUM = 3
"""Number of vehicles that have to have reported before anyone is refused for being ahead."""
REFILL_S = 3600.0
"""Seconds in which all places come back where no other vehicle reports, so that a lone one goes on slowly."""


class TooFarAheadError(FleetflError, ValueError):
    """A vehicle has no place left: other vehicles have to report first."""


@dataclass(frozen=True)
class Taken:
    """State of a vehicle after its newest report."""

    places: float
    """Places that the vehicle has taken and not got back."""
    number: int
    """Number of reports of all vehicles up to and including this one."""
    at_s: float
    """Time at which its update was kept, UTC seconds; 0 if it is not known."""


class Pace:
    """Places taken by vehicles and not yet given back; at most `ahead` vehicles are remembered."""

    def __init__(self, ahead: int | None) -> None:
        """`ahead` is each vehicle's number of places; None lets all report as often as they like."""
        self.ahead = ahead
        self.number = 0
        """Number of reports of all vehicles, refused ones included."""
        self.heard: list[str] = []
        """First QUORUM vehicles that reported."""
        self.newest: OrderedDict[str, Taken] = OrderedDict()
        """Newest report of each vehicle; the one that reported last is last."""

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
