"""The state of a run so far, counted from its events as they are written."""

from pathlib import Path

from fleetfl.events.event_log import EventReader
from sim.report.summary import incidents


class Tally:
    def __init__(self, path: Path) -> None:
        self.reader = EventReader(path)
        self.accepted = self.refused = self.version = 0
        self.accuracy: float | None = None
        self.replicas_seen = 0

    def read(self) -> list[str]:
        """Take in the events since the last call; gives the incidents among them, in words."""
        new = self.reader.read()
        for event in new:
            kind = event["event"]
            self.accepted += kind == "accepted"
            self.refused += kind == "refused"
            if kind == "released":
                self.version = event["version"]
            elif kind == "evaluated":
                self.accuracy = event["accuracy"]
        started = [e for e in new if e["event"] == "replica_started"]
        said = incidents([e for e in new if e["event"] != "replica_started"])
        for event in started:
            self.replicas_seen += 1
            if self.replicas_seen > event["replicas"]:
                said.append("a Serve replica died and was replaced")
        return said

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f"  accuracy {self.accuracy:.1%}"
        refused = f" ({self.refused} refused)" if self.refused else ""
        return f"release {self.version}  {self.accepted} updates{refused}{accuracy}"
