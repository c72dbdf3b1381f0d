"""Meaning of the lines of events.jsonl: every event's name, its fields, their types and units.

Each line has `time`, UTC seconds (in a virtual fleet: seconds of virtual time), and `event`, the name.
A field or an event may be added without another SCHEMA; readers pass over what they do not know.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fleetfl.events.declaration import Event, Field, Kind, UndeclaredEvent

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


def _text(name: str, about: str) -> Field:
    return Field(name, Kind.TEXT, about)


def _count(name: str, about: str, unit: str = "") -> Field:
    return Field(name, Kind.COUNT, about, unit)


def _number(name: str, about: str, unit: str = "") -> Field:
    return Field(name, Kind.NUMBER, about, unit)


def _list(name: str, about: str) -> Field:
    return Field(name, Kind.LIST, about)


def _table(name: str, about: str, unit: str = "") -> Field:
    return Field(name, Kind.TABLE, about, unit)


def _may_lack(field: Field) -> Field:
    return Field(field.name, field.kind, field.about, field.unit, is_optional=True)


_DETAIL = _text("detail", "Reason, in words.")
_VEHICLE = _text("vehicle", "Name of the vehicle.")
_BOOT = _text("boot", "Name of the start of the agent, drawn at each.")
_PID = _count("pid", "Process that writes the line.")
_ROW = _count("row", "Row of the journal.")
_VERSION = _count("version", "Version of the release.")
_SHA256 = _text("sha256", "SHA-256 of the release's float32 vector, 64 hexadecimal digits.")
_WHY = _text("why", "Reason, in the words of whoever asked.")
_ACCURACY = _number("accuracy", "Share of held-out frames that were classified right.", "1")
_BY_CONDITION = _table("by_condition", "The same for each weather condition.", "1")

_OF_UPDATES = (
    _VEHICLE,
    _BOOT,
    _count(
        "sequence", "Number of the update in its boot; (vehicle, boot, sequence) names the update."
    ),
    _count(
        "base", "Version that training started from; -1 if the frame could not be read.", "versions"
    ),
    _count("staleness", "Versions released between the update's base and its use.", "versions"),
    _count("bytes", "Size of the update's frame.", "bytes"),
    _may_lack(
        _count(
            "row", "Row of the journal; absent if the gateway told it without or before a new row."
        )
    ),
)
_OF_LEARNING = (
    _may_lack(_number("loss", "Mean training loss over the local steps.")),
    _may_lack(_count("num_examples", "Examples that the vehicle trained on.", "frames")),
    _may_lack(
        _number("clipped_to", "Share of the update that was counted, if it was too long.", "1")
    ),
)
_OF_STATUS = (
    _VEHICLE,
    _BOOT,
    _count("version", "Release that the vehicle trains on; -1 before the first."),
    _count(
        "bytes_up", "Frames that the vehicle published since its boot, repeats included.", "bytes"
    ),
    _count("bytes_down", "Release and snapshot frames that it received since its boot.", "bytes"),
    _count("waiting", "Updates in its outbox.", "updates"),
    _table("outcomes", "Number of its updates by how they ended, over all boots.", "updates"),
    _text("note", "Whatever hinders the vehicle, in words; empty if nothing does."),
)
_OF_A_ROLLBACK = (
    _ROW,
    _text("restores", "GENERATION/VERSION of the release that was asked for."),
)
_OF_A_BAN = (_ROW, _VEHICLE)


def _declared(by: str, events: Iterable[tuple[str, str, tuple[Field, ...]]]) -> list[Event]:
    return [Event(name, by, about, fields) for name, about, fields in events]


_LOG = _declared(
    "each writer",
    [
        (
            OPENED,
            "A file begins: its first line. `EventReader` keeps it to itself.",
            (_count("schema", "Schema of the lines that follow."),),
        ),
        (
            MISSING,
            "The disk took lines again after it had not.",
            (_count("lines", "Events that are in no file.", "lines"),),
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
                _PID,
                _VERSION,
                _text("generation", "Generation of versions that it goes on with."),
                _count("replayed", "Rows of the journal that were counted at the start.", "rows"),
                _number("seconds", "Duration of the start.", "s"),
            ),
        ),
        (
            "aggregator_stopped",
            "The aggregator was asked to end, and counts no more.",
            (_count("counted_row", "Last row of the journal that was counted."),),
        ),
        ("accepted", "An update was counted.", (*_OF_UPDATES, *_OF_LEARNING)),
        (
            "duplicate",
            "An update came again: it counts once. The gateway tells repeats of rows that are there.",
            (*_OF_UPDATES, *_OF_LEARNING),
        ),
        (
            "refused",
            "An update was not counted. The gateway refuses what it cannot read or believe.",
            (
                *_OF_UPDATES,
                _text("reason", "Reason, one word of `Refusal`, `format` or `signature`."),
                _DETAIL,
            ),
        ),
        ("released", "A version is out.", (_VERSION, _SHA256)),
        (
            "rolled_back",
            "The next version has an older one's bits.",
            (*_OF_A_ROLLBACK, _VERSION, _SHA256, _WHY),
        ),
        ("rollback_refused", "A rollback was asked for and not done.", (*_OF_A_ROLLBACK, _DETAIL)),
        (
            "vehicle_banned",
            "No update of the vehicle is counted from this row on.",
            (*_OF_A_BAN, _WHY),
        ),
        ("ban_lifted", "Updates of the vehicle are counted again.", (*_OF_A_BAN, _WHY)),
        (
            "ban_refused",
            "A ban was asked for by somebody without the server's key.",
            (*_OF_A_BAN, _DETAIL),
        ),
        (
            "generation_began",
            "Versions may have other bits from here on, so they have another generation's name.",
            (
                _text("generation", "Name of the new generation."),
                _VERSION,
                _text("was", "GENERATION/VERSION that it goes on from."),
                _count("counted_row", "Last row of the journal that is counted by it."),
                _text("why", "Reason, in words."),
            ),
        ),
        ("checkpoint_damaged", "A checkpoint could not be read and was set aside.", (_DETAIL,)),
        (
            "checkpoint_failed",
            "A checkpoint could not be written; the next one tries again.",
            (_DETAIL,),
        ),
        (
            "journal_lost",
            "The journal is not there, or not its end.",
            (_count("counted", "Last row that is known to have been counted."),),
        ),
        (
            "journal_rows_missing",
            "Rows of the journal are gone that nobody has trimmed.",
            (_count("first", "First row that is gone."), _count("last", "Last row that is gone.")),
        ),
        (
            "journal_repaired",
            "A damaged journal was set aside, and another one made of what could be read.",
            (
                _text("aside", "Name of the damaged file."),
                _count("saved", "Rows that could be read.", "rows"),
                _list("lost", "Numbers of rows that could not."),
            ),
        ),
        (
            "journal_damaged",
            "One row's checksum does not fit: it is not counted.",
            (
                _count("damaged_row", "Row of the journal."),
                _count("bytes", "Size of what is left of its frame.", "bytes"),
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
            (_PID, _count("partition", "Part of the fleet whose packets it takes.")),
        ),
        ("online", "A vehicle's status, where it says something new.", _OF_STATUS),
        ("offline", "A vehicle has said goodbye, or the broker did for it.", _OF_STATUS),
        (
            "malformed",
            "Malformed packets: no message of the vehicle on whose topic they came.",
            (
                _text("vehicle", "Name on the topic of the last one."),
                _text("leaf", "Last level of that topic."),
                _text("detail", "What was found and expected there, in words."),
                _count("packets", "Such packets since the last line.", "packets"),
                _text(
                    "worst",
                    "Name on the topic of most of them; empty for names beyond the first 1,000.",
                ),
            ),
        ),
        ("journal_failed", "The journal takes nothing, so nothing is acknowledged.", (_DETAIL,)),
        ("journal_resumed", "The journal takes updates again.", ()),
        (
            "announced",
            "The broker has the version for all vehicles.",
            (
                _VERSION,
                _count("bytes", "Size of the newest release's frame.", "bytes"),
                _count("snapshot_bytes", "Size of the whole version's frame.", "bytes"),
            ),
        ),
        (
            "announcement_failed",
            "A version could not be announced; it is tried again.",
            (_count("after", "Version that was announced last."), _DETAIL),
        ),
        (
            "retained_lost",
            "The broker had lost retained messages; they were published again.",
            (_list("topics", "Topics that were empty."), _VERSION),
        ),
        (
            "another_server",
            "A server with this server's key announces in the same fleet: one of the two has to stop.",
            (_VERSION, _text("generation", "Generation of that server's version.")),
        ),
    ],
)

_ENDPOINT = _declared(
    "endpoint",
    [
        (
            "replica_started",
            "A process of the endpoint runs.",
            (_PID, _count("replicas", "Processes that there are to be.")),
        ),
        ("serving", "A replica answers from this release.", (_VERSION,)),
        (
            "release_refused",
            "A replica did not take a release and serves the one before on.",
            (_VERSION, _text("reason", "Reason, in words.")),
        ),
    ],
)

_EVALUATOR = _declared(
    "evaluator",
    [
        (
            "evaluated",
            "A release was scored on held-out frames.",
            (_VERSION, _ACCURACY, _BY_CONDITION),
        ),
        (
            "evaluation_failed",
            "A release could not be scored; it is tried again.",
            (
                _count("version", "Last version before it that was scored; negative if none was."),
                _DETAIL,
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
                _VEHICLE,
                _text("condition", "Weather that it meets."),
                _number("severity", "Strength of that weather, 0 to 1.", "1"),
                _count("pid", "Process of the vehicle."),
            ),
        ),
        (
            "vehicle_died",
            "A simulated vehicle's process ended by itself, and is started again.",
            (
                _VEHICLE,
                _count("code", "Exit status; negative for a signal's number."),
                _text("cause", "The signal's name, or the exit status in words."),
            ),
        ),
        (
            "measured",
            "The client asked the endpoint about all held-out frames.",
            (
                _count("version", "Release that answered last; -1 for none."),
                _ACCURACY,
                _BY_CONDITION,
            ),
        ),
        (
            "probe",
            "One second of the client's steady questions.",
            (
                _count("version", "Release that answered last; -1 for none."),
                _count("requests", "Questions asked.", "requests"),
                _count("failures", "Questions without an answer.", "requests"),
                _count("right", "Answers that were right.", "requests"),
            ),
        ),
        ("http_failed", "The endpoint did not answer a question.", (_DETAIL,)),
        (
            "receipt",
            "A witness beside a vehicle of a drill saw a receipt (in a file of its own).",
            (
                _BOOT,
                _count("sequence", "Number of the update in its boot."),
                _text("verdict", "`accepted`, `duplicate` or `refused`."),
                _text("reason", "Reason of a refusal; else empty."),
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
