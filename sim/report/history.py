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
        self.end_s = 1.0
        for event in ordered:
            told = {**event, "at": event["time"] - self.began}
            self.end_s = max(self.end_s, told["at"])
            self.kinds[event["event"]].append(told)
            # Noise may bear any name.
            if "vehicle" in event and event["event"] != "noise":
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

    def absences(self, vehicle: str) -> list[Absence]:
        """When it was offline or dead. Ends where the vehicle says anything, or with the run."""
        found: list[Absence] = []
        gone: Event | None = None
        for event in self.vehicles.get(vehicle, []):
            if event["event"] in ("offline", "vehicle_died"):
                # The last will of a dead process arrives after its death, and is part of it.
                gone = gone or event
            elif gone is not None:
                found.append(Absence(gone["at"], event["at"], gone["event"] == "vehicle_died"))
                gone = None
        if gone is not None:
            found.append(Absence(gone["at"], self.end_s, gone["event"] == "vehicle_died"))
        return found

    def last_state(self, vehicle: str) -> str:
        """online, offline, died, started (and never heard of), or empty."""
        state = ""
        for event in self.vehicles.get(vehicle, []):
            state = STATES.get(event["event"], state)
        return state
