"""The schema as a page of the documentation: docs/events.md is written by `python -m fleetfl.events`."""

from collections.abc import Iterator

from fleetfl.events.schema import EVENTS, SCHEMA, Event

HEAD = f"""# Events

The server writes what happens to `events.jsonl` in its state folder, a line of JSON for each event. A run
of the simulator writes the same file. Older files are `events.jsonl.1` (the newest of them) and on;
`server.events` says how many stay. Each line has, beside the fields below:

| field | type | unit | meaning |
|---|---|---|---|
| `time` | number | s | UTC seconds since 1970; in a virtual fleet, seconds of virtual time. |
| `event` | text | | Name of the event. |

The first line of each file is `log_opened` with the schema of the file, today {SCHEMA}. The number counts
up when a name or a field changes its meaning; files without that line count as 0 and are read all the same.
New events and new fields come without a new number, so a reader passes over what it does not know. Optional
fields are marked with `?`.

This page is generated from `fleetfl/events/schema.py`: `python -m fleetfl.events > docs/events.md`.
"""


def markdown() -> str:
    """All of docs/events.md."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    writer = ""
    for event in EVENTS.values():
        if event.by != writer:
            writer = event.by
            yield (
                f"## Written by the {writer}\n"
                if " " not in writer
                else f"## Written by {writer}\n"
            )
        yield from _about(event)


def _about(event: Event) -> Iterator[str]:
    yield f"### {event.name}\n\n{event.about}\n"
    if event.fields:
        yield "| field | type | unit | meaning |\n|---|---|---|---|"
        for field in event.fields:
            name = f"`{field.name}`" + "?" * field.is_optional
            yield f"| {name} | {field.kind.value} | {field.unit} | {field.about} |"
        yield ""
