"""Every event is declared: names and fields in the code, values at run time, and the page about them."""

import ast
import json
import threading
from pathlib import Path

import pytest

from fleetfl.coordination.outcome import Outcome, Refusal, judged
from fleetfl.events.event_log import Config, EventLog, EventReader, parts
from fleetfl.events.page import markdown
from fleetfl.events.schema import EVENTS, OPENED, SCHEMA, UndeclaredEvent, require_declared
from fleetfl.registry import ban
from sim.live.tally import Tally
from sim.report.summary import incidents

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]

CHOSEN = {
    ("actors/counting/row_judge.py", "event"): {"accepted", "duplicate", "refused"},
    ("actors/counting/row_judge.py", "done"): {ban.DONE, ban.LIFTED},
    ("actors/counting/row_judge.py", "ban.REFUSED"): {ban.REFUSED},
    ("actors/gateway.py", "status.state"): {"online", "offline"},
    ("sim/fleet/server.py", "event"): {"accepted", "duplicate", "refused"},
    ("fleetfl/events/event_log.py", "MISSING"): {"events_missing"},
}
"""Events of the calls that do not name theirs: what the expression may be."""


def writes():
    """File, name expression, keywords, and whether more fields are spread in: of every call that writes."""
    for package in ("fleetfl", "actors", "vehicle_agent", "sim"):
        for path in sorted((ROOT / package).rglob("*.py")):
            file = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "write"
                    and ast.unparse(node.func.value).endswith(("events", "receipts"))
                ):
                    keywords = [word.arg for word in node.keywords]
                    yield file, node.args[0], {k for k in keywords if k}, None in keywords


def names(file, expression):
    """Events that a call may write."""
    if isinstance(expression, ast.Constant):
        return {expression.value}
    return CHOSEN[file, ast.unparse(expression)]


def test_every_call_names_a_declared_event_with_declared_fields():
    found = list(writes())
    assert len(found) > 30
    for file, name, keywords, is_open in found:
        for kind in names(file, name):
            assert kind in EVENTS, f"{file}: {kind}"
            declared = {field.name for field in EVENTS[kind].fields}
            needed = {field.name for field in EVENTS[kind].fields if not field.is_optional}
            assert keywords <= declared, f"{file}: {kind} has {keywords - declared}"
            assert is_open or needed <= keywords, f"{file}: {kind} lacks {needed - keywords}"


def test_every_declared_event_is_written_somewhere():
    written = {OPENED, "events_missing"}
    for file, name, _, _ in writes():
        written |= names(file, name)
    assert written == set(EVENTS)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("accepted", 3, 1),
        Outcome("accepted", 3, 1, share=0.5),
        Outcome("duplicate", 3, 1),
        Outcome("refused", 3, 9, Refusal.STALE, "9 versions behind"),
    ],
)
def test_what_became_of_an_update_is_told_as_declared(make_update, outcome):
    require_declared(*judged(make_update(), outcome, num_bytes=1_312, row=17))


@pytest.mark.parametrize(
    ("event", "fields", "named"),
    [
        ("relesed", {"version": 1}, "relesed"),
        ("released", {"version": 1}, "sha256 is missing"),
        ("released", {"version": 1, "sha256": "ab", "size": 3}, "size is not declared"),
        ("released", {"version": "1", "sha256": "ab"}, "version is '1'"),
        ("released", {"version": True, "sha256": "ab"}, "version is True"),
    ],
)
def test_an_event_that_is_not_as_declared_is_named(event, fields, named):
    with pytest.raises(UndeclaredEvent, match=named):
        require_declared(event, fields)


def test_the_logs_of_these_tests_take_only_declared_events(tmp_path):
    with pytest.raises(UndeclaredEvent):
        EventLog(tmp_path / "events.jsonl").write("anything")
    assert not (tmp_path / "events.jsonl").exists()


def test_the_page_says_what_is_declared():
    """Written anew by `python -m fleetfl.events > docs/events.md`."""
    assert (ROOT / "docs/events.md").read_text() == markdown()
    assert all(f.about.endswith(".") for event in EVENTS.values() for f in event.fields)


def test_each_file_begins_with_the_schema_of_its_lines(tmp_path):
    """A line is some 50 bytes and a file 4,096: three files for 150 lines, however many write at once."""
    path = tmp_path / "events.jsonl"
    bounds = Config(max_bytes=4096, older_files=9)

    def write(number):
        log = EventLog(path, bounds=bounds)
        for _ in range(50):
            log.write("serving", version=number)
        log.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(parts(path)) > 1
    for part in parts(path):
        first, *others = [json.loads(line) for line in part.read_text().splitlines()]
        assert (first["event"], first["schema"]) == (OPENED, SCHEMA)
        assert OPENED not in {event["event"] for event in others}
    reader = EventReader(path)
    assert len(reader.read()) == 150
    assert reader.schema == SCHEMA


def test_former_names_are_read_as_those_of_today(tmp_path):
    old = [
        {"time": 1.0, "event": "noise", "vehicle": "v1", "detail": "no frame", "packets": 3},
        {"time": 2.0, "event": "journal_mended"},
        {"time": 3.0, "event": "online", "vehicle": "v1", "ends": {"accepted": 2}},
        {"time": 4.0, "event": "generation_began", "lineage": "2-ab", "version": 7},
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*old, {"event": ["odd"]}]))
    malformed, resumed, online, began = EventReader(path).read()
    assert (malformed["event"], malformed["packets"]) == ("malformed", 3)
    assert resumed["event"] == "journal_resumed"
    assert online["outcomes"] == {"accepted": 2}
    assert began["generation"] == "2-ab"
    assert {event["event"] for event in (malformed, resumed, online, began)} <= set(EVENTS)


def test_readers_go_on_with_files_of_before_and_of_later(tmp_path, caplog):
    """The old file says no schema, and the new one a later schema and an event that nobody knows."""
    old = {"time": 1.0, "event": "released", "version": 4, "sha256": "ab"}
    new = [
        {"time": 2.0, "event": OPENED, "schema": SCHEMA + 1},
        {"time": 2.5, "event": "of a later version", "colour": "blue"},
        {"time": 3.0, "event": "released", "version": 5, "sha256": "cd", "more": 1},
    ]
    (tmp_path / "events.jsonl.1").write_text(json.dumps(old) + "\n")
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in new))
    reader, tally = EventReader(tmp_path / "events.jsonl"), Tally(tmp_path / "events.jsonl")
    events = reader.read()
    assert [event["event"] for event in events] == ["released", "of a later version", "released"]
    assert incidents(events) == tally.read() == []
    assert tally.version == 5
    assert reader.schema == SCHEMA + 1
    assert f"schema {SCHEMA + 1}" in caplog.text
