"""Meaning of the lines of events.jsonl: every event's name, its fields, their types and units.

Each line has `time`, UTC seconds (in a virtual fleet: seconds of virtual time), and `event`, the name.
A field or an event may be added without another SCHEMA; readers pass over what they do not know.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fleetfl.events.declaration import Event, Field, UndeclaredEvent
from fleetfl.events.fields import (
    ACCURACY,
    BOOT,
    BY_CONDITION,
    DETAIL,
    OF_A_BAN,
    OF_A_ROLLBACK,
    OF_LEARNING,
    OF_STATUS,
    OF_UPDATES,
    PID,
    SHA256,
    VEHICLE,
    VERSION,
    WHY,
    count,
    listed,
    number,
    text,
)

SCHEMA = 1
"""Number of the schema, counted up when a name or a field changes its meaning; files without one count as
0."""
FORMER_EVENTS = {"noise": "malformed", "journal_mended": "journal_resumed"}
"""Former event names, in files that state no schema, and their present names."""
FORMER_FIELDS = {"lineage": "generation", "ends": "outcomes"}
"""Former field names, in files that state no schema, and their present names."""
OPENED = "log_opened"
"""Name of the event in the first line of each file."""
MISSING = "events_missing"
"""Name of the event that counts lines lost before it."""


def _declared(by: str, events: Iterable[tuple[str, str, tuple[Field, ...]]]) -> list[Event]:
    return [Event(name, by, about, fields) for name, about, fields in events]


_LOG = _declared(
    "each writer",
    [
        (
            OPENED,
            "A file begins: its first line. `EventReader` keeps it to itself.",
            (count("schema", "Schema of the lines that follow."),),
        ),
        (
            MISSING,
            "The disk took lines again after it had not.",
            (count("lines", "Events that are in no file.", "lines"),),
        ),
    ],
)

_AGGREGATOR = _declared(
    "aggregator",
    [
        (
            "aggregator_started",
            "The owner of the model runs, and has counted what the journal had.",
            (
                PID,
                VERSION,
                text("generation", "Generation of versions that it goes on with."),
                count("replayed", "Rows of the journal that were counted at the start.", "rows"),
                number("seconds", "Duration of the start.", "s"),
            ),
        ),
        (
            "aggregator_stopped",
            "The aggregator was asked to end, and counts no more.",
            (count("counted_row", "Last row of the journal that was counted."),),
        ),
        ("accepted", "An update was counted.", (*OF_UPDATES, *OF_LEARNING)),
        (
            "duplicate",
            "An update came again: it counts once. The gateway tells repeats of rows that are there.",
            (*OF_UPDATES, *OF_LEARNING),
        ),
        (
            "refused",
            "An update was not counted. The gateway refuses what it cannot read or believe.",
            (
                *OF_UPDATES,
                text("reason", "Reason, one word of `Refusal`, `format` or `signature`."),
                DETAIL,
            ),
        ),
        ("released", "A version is out.", (VERSION, SHA256)),
        (
            "rolled_back",
            "The next version has an older one's bits.",
            (*OF_A_ROLLBACK, VERSION, SHA256, WHY),
        ),
        ("rollback_refused", "A rollback was asked for and not done.", (*OF_A_ROLLBACK, DETAIL)),
        (
            "vehicle_banned",
            "No update of the vehicle is counted from this row on.",
            (*OF_A_BAN, WHY),
        ),
        ("ban_lifted", "Updates of the vehicle are counted again.", (*OF_A_BAN, WHY)),
        (
            "ban_refused",
            "A ban was asked for by somebody without the server's key.",
            (*OF_A_BAN, DETAIL),
        ),
        (
            "generation_began",
            "Versions may have other bits from here on, so they have another generation's name.",
            (
                text("generation", "Name of the new generation."),
                VERSION,
                text("was", "GENERATION/VERSION that it goes on from."),
                count("counted_row", "Last row of the journal that is counted by it."),
                text("why", "Reason, in words."),
            ),
        ),
        ("checkpoint_damaged", "A checkpoint could not be read and was set aside.", (DETAIL,)),
        (
            "checkpoint_failed",
            "A checkpoint could not be written; the next one tries again.",
            (DETAIL,),
        ),
        (
            "journal_lost",
            "The journal is not there, or not its end.",
            (count("counted", "Last row that is known to have been counted."),),
        ),
        (
            "journal_rows_missing",
            "Rows of the journal are gone that nobody has trimmed.",
            (count("first", "First row that is gone."), count("last", "Last row that is gone.")),
        ),
        (
            "journal_repaired",
            "A damaged journal was set aside, and another one made of what could be read.",
            (
                text("aside", "Name of the damaged file."),
                count("saved", "Rows that could be read.", "rows"),
                listed("lost", "Numbers of rows that could not."),
            ),
        ),
        (
            "journal_damaged",
            "One row's checksum does not fit: it is not counted.",
            (
                count("damaged_row", "Row of the journal."),
                count("bytes", "Size of what is left of its frame.", "bytes"),
            ),
        ),
    ],
)

_GATEWAY = _declared(
    "gateway",
    [
        (
            "gateway_started",
            "A gateway is connected to the broker.",
            (PID, count("partition", "Part of the fleet whose packets it takes.")),
        ),
        ("online", "A vehicle's status, where it says something new.", OF_STATUS),
        ("offline", "A vehicle has said goodbye, or the broker did for it.", OF_STATUS),
        (
            "malformed",
            "Malformed packets: no message of the vehicle on whose topic they came.",
            (
                text("vehicle", "Name on the topic of the last one."),
                text("leaf", "Last level of that topic."),
                text("detail", "What was found and expected there, in words."),
                count("packets", "Such packets since the last line.", "packets"),
                text(
                    "worst",
                    "Name on the topic of most of them; empty for names beyond the first 1,000.",
                ),
            ),
        ),
        ("journal_failed", "The journal takes nothing, so nothing is acknowledged.", (DETAIL,)),
        ("journal_resumed", "The journal takes updates again.", ()),
        (
            "announced",
            "The broker has the version for all vehicles.",
            (
                VERSION,
                count("bytes", "Size of the newest release's frame.", "bytes"),
                count("snapshot_bytes", "Size of the whole version's frame.", "bytes"),
            ),
        ),
        (
            "announcement_failed",
            "A version could not be announced; it is tried again.",
            (count("after", "Version that was announced last."), DETAIL),
        ),
        (
            "retained_lost",
            "The broker had lost retained messages; they were published again.",
            (listed("topics", "Topics that were empty."), VERSION),
        ),
        (
            "another_server",
            "A server with this server's key announces in the same fleet: one of the two has to stop.",
            (VERSION, text("generation", "Generation of that server's version.")),
        ),
    ],
)

_ENDPOINT = _declared(
    "endpoint",
    [
        (
            "replica_started",
            "A process of the endpoint runs.",
            (PID, count("replicas", "Processes that there are to be.")),
        ),
        ("serving", "A replica answers from this release.", (VERSION,)),
        (
            "release_refused",
            "A replica did not take a release and serves the one before on.",
            (VERSION, text("reason", "Reason, in words.")),
        ),
    ],
)

_EVALUATOR = _declared(
    "evaluator",
    [
        (
            "evaluated",
            "A release was scored on held-out frames.",
            (VERSION, ACCURACY, BY_CONDITION),
        ),
        (
            "evaluation_failed",
            "A release could not be scored; it is tried again.",
            (
                count("version", "Last version before it that was scored; negative if none was."),
                DETAIL,
            ),
        ),
    ],
)

_SIMULATOR = _declared(
    "simulator",
    [
        (
            "vehicle_started",
            "A simulated vehicle's process runs.",
            (
                VEHICLE,
                text("condition", "Weather that it meets."),
                number("severity", "Strength of that weather, 0 to 1.", "1"),
                count("pid", "Process of the vehicle."),
            ),
        ),
        (
            "vehicle_died",
            "A simulated vehicle's process ended by itself, and is started again.",
            (
                VEHICLE,
                count("code", "Exit status; negative for a signal's number."),
                text("cause", "The signal's name, or the exit status in words."),
            ),
        ),
        (
            "measured",
            "The client asked the endpoint about all held-out frames.",
            (
                count("version", "Release that answered last; -1 for none."),
                ACCURACY,
                BY_CONDITION,
            ),
        ),
        (
            "probe",
            "One second of the client's steady questions.",
            (
                count("version", "Release that answered last; -1 for none."),
                count("requests", "Questions asked.", "requests"),
                count("failures", "Questions without an answer.", "requests"),
                count("right", "Answers that were right.", "requests"),
            ),
        ),
        ("http_failed", "The endpoint did not answer a question.", (DETAIL,)),
        (
            "receipt",
            "A witness beside a vehicle of a drill saw a receipt (in a file of its own).",
            (
                BOOT,
                count("sequence", "Number of the update in its boot."),
                text("verdict", "`accepted`, `duplicate` or `refused`."),
                text("reason", "Reason of a refusal; else empty."),
            ),
        ),
    ],
)

EVENTS: dict[str, Event] = {
    event.name: event
    for event in (*_LOG, *_AGGREGATOR, *_GATEWAY, *_ENDPOINT, *_EVALUATOR, *_SIMULATOR)
}
"""Every event by its name, in the order of docs/events.md."""


def renamed(event: dict[str, Any]) -> dict[str, Any]:
    """The event, changed in place, with present names where it has former ones."""
    if event["event"] in FORMER_EVENTS:
        event["event"] = FORMER_EVENTS[event["event"]]
    for former in FORMER_FIELDS.keys() & event.keys():
        event.setdefault(FORMER_FIELDS[former], event.pop(former))
    return event


def require_declared(event: str, fields: Mapping[str, Any]) -> None:
    """Raises UndeclaredEvent for an event that no reader could look up."""
    declared = EVENTS.get(event)
    objections = ["it is not declared"] if declared is None else declared.objections(fields)
    if objections:
        raise UndeclaredEvent(
            f"event {event!r}: {'; '.join(objections)} (fleetfl/events/schema.py)"
        )
