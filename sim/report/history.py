"""The events of a run in order, on a clock that begins with the first. Draws nothing."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]

STATES = {
    "vehicle_started": "started",
    "online": "online",
    "accepted": "online",
    "offline": "offline",
    "vehicle_died": "died",
}
"""What an event says of its vehicle."""


@dataclass(frozen=True)
class Absence:
    """From one moment to another a vehicle was not there; seconds since the run began."""

    begin_s: float
    end_s: float
    died: bool


class History:
    """Each event gets "at", its seconds since the first one."""

    def __init__(self, events: list[Event]) -> None:
        ordered = sorted(events, key=lambda event: event["time"])
        self.began = ordered[0]["time"] if ordered else 0.0
        self.kinds: defaultdict[str, list[Event]] = defaultdict(list)
        self.vehicles: defaultdict[str, list[Event]] = defaultdict(list)
        self.end_s, self.learned_until_s = 1.0, 0.0
        for event in ordered:
            told = {**event, "at": event["time"] - self.began}
            self.end_s = max(self.end_s, told["at"])
            if event["event"] == "accepted":
                # After the last of these the fleet is being stopped; to go offline is no news.
                self.learned_until_s = told["at"]
            self.kinds[event["event"]].append(told)
            # Noise may bear any name.
            if "vehicle" in event and event["event"] not in ("malformed", "noise"):
                self.vehicles[event["vehicle"]].append(told)

    def of(self, kind: str) -> list[Event]:
        return self.kinds.get(kind, [])

    def replicas_restarted(self) -> list[Event]:
        """Those that started past the number the server was asked for."""
        return [
            event
            for nth, event in enumerate(self.of("replica_started"), start=1)
            if nth > event.get("replicas", 1)
        ]

    def while_learning(self, vehicle: str) -> list[Event]:
        """What the vehicle did up to the last update that the server took from anyone."""
        told = self.vehicles.get(vehicle, [])
        return [event for event in told if event["at"] <= self.learned_until_s]

    def absences(self, vehicle: str) -> list[Absence]:
        """When it was offline or dead. Ends where the vehicle says anything, or with the run."""
        found: list[Absence] = []
        gone: Event | None = None
        for event in self.while_learning(vehicle):
            if STATES.get(event["event"]) in ("offline", "died"):
                # The last will of a dead process arrives after its death, and is part of it.
                gone = gone or event
            elif gone is not None:
                found.append(Absence(gone["at"], event["at"], _is_death(gone)))
                gone = None
        if gone is not None:
            found.append(Absence(gone["at"], self.end_s, _is_death(gone)))
        return found

    def last_state(self, vehicle: str) -> str:
        """While the fleet still learned: started, online, offline, died, or empty if unheard of."""
        state = ""
        for event in self.while_learning(vehicle):
            said = STATES.get(event["event"], state)
            # The last will of a dead process does not make it merely offline.
            state = state if (state, said) == ("died", "offline") else said
        return state


def _is_death(event: Event) -> bool:
    return event["event"] == "vehicle_died"
