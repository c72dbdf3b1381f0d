"""The report and the table: whole, harmless, and right in their numbers."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sim.report import figures, write_report
from sim.report.accuracy import binned
from sim.report.history import Absence, History
from sim.report.markup import VOID, element
from sim.report.table import result_table
from sim.report.updates import staleness_class
from tests.fake_run import fake_pictures, fake_run

pytestmark = pytest.mark.unit

HOSTILE = "<script>alert('v')</script>[red]\"&"
KINDS = (
    "released",
    "announced",
    "accepted",
    "duplicate",
    "refused",
    "malformed",
    "online",
    "offline",
    "evaluated",
    "serving",
    "replica_started",
    "probe",
    "vehicle_started",
    "vehicle_died",
)


class Outline(HTMLParser):
    """Tags in order, attributes that load something, and whether every tag was closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed


def written(folder: Path, summary: dict[str, Any], events: list[dict[str, Any]]) -> str:
    write_report(folder / "report.html", summary, events, pictures=fake_pictures(each=1))
    return (folder / "report.html").read_text(encoding="utf-8")


def printed(summary: dict[str, Any], *, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(result_table(summary))
    return capture.get()


@pytest.fixture(scope="module")
def run() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return fake_run()


def test_page_is_whole_and_says_the_result(run: tuple[Any, Any], tmp_path: Path) -> None:
    page = written(tmp_path, *run)
    assert outline(page).tags.count("section") == 9
    assert "from 61.2 % to 83.4 % under its own weather, 40 releases, no failed request" in page
    assert "update of v07 refused (body)" in page
    assert "configs/quickstart.yaml" in page


def test_page_of_a_virtual_run_tells_of_energy_and_of_no_endpoint(
    run: tuple[Any, Any], tmp_path: Path
) -> None:
    """7.2 MJ are 2 kWh."""
    summary, events = run
    summary = summary | {"clock": "virtual", "joules": 7.2e6, "http_requests": 0}
    page = written(tmp_path, summary, [e for e in events if e["event"] != "probe"])
    assert "2 kWh" in page
    assert "endpoint" not in page.lower()
    assert "Served" not in page


def test_page_loads_nothing_from_elsewhere(run: tuple[Any, Any], tmp_path: Path) -> None:
    page = written(tmp_path, *run)
    assert "http:" not in page
    assert "https:" not in page
    assert re.search(r"@import|url\(|fetch\(|XMLHttpRequest", page) is None
    assert all(source.startswith("data:") for source in outline(page).loaded)


def test_page_draws_a_dot_for_each_accepted_update(run: tuple[Any, Any], tmp_path: Path) -> None:
    summary, _ = run
    dots = re.findall(r'<circle [^>]*class="s[0-4]"', written(tmp_path, *run))
    assert len(dots) == summary["updates_accepted"]


def test_words_from_outside_stay_words(tmp_path: Path) -> None:
    summary, events = fake_run(seconds=60)
    events = [{**e, "vehicle": HOSTILE} if e.get("vehicle") == "v03" else e for e in events]
    events.append({"time": events[-1]["time"], "event": "refused", "vehicle": HOSTILE})
    events[-1] |= {"reason": HOSTILE, "detail": HOSTILE, "staleness": 0, "bytes": 1}
    summary |= {"name": HOSTILE, "config": HOSTILE, "incidents": [HOSTILE], "commit": HOSTILE}
    summary["vehicles"][HOSTILE] = summary["vehicles"].pop("v03") | {"condition": HOSTILE}
    summary["updates_refused"] = {HOSTILE: 1}
    page = written(tmp_path, summary, events)
    assert outline(page).tags.count("script") == 1
    assert "alert(" in page
    assert "[red]" in printed(summary, width=100)


def test_lone_surrogate_does_not_cost_the_report(tmp_path: Path) -> None:
    summary, events = fake_run(seconds=30)
    assert "odd ?" in written(tmp_path, summary | {"incidents": ["odd \ud800"]}, events)


@pytest.mark.parametrize("kind", KINDS)
def test_page_does_without_any_one_kind_of_event(kind: str, tmp_path: Path) -> None:
    summary, events = fake_run(seconds=60)
    outline(written(tmp_path, summary, [e for e in events if e["event"] != kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_page_does_with_one_kind_of_event_alone(kind: str, tmp_path: Path) -> None:
    summary, events = fake_run(seconds=60)
    outline(written(tmp_path, summary, [e for e in events if e["event"] == kind]))


def test_page_and_table_do_with_a_run_in_which_nothing_happened(tmp_path: Path) -> None:
    summary, _ = fake_run(seconds=5)
    summary |= {
        "updates_accepted": 0,
        "updates_refused": {},
        "staleness": {"mean": 0.0, "max": 0, "histogram": {}},
        "accuracy": {"start": None, "end": None, "by_condition": {}},
        "releases": 0,
        "vehicles": {},
        "incidents": [],
        "http_requests": 0,
        "http_latency_ms": {},
    } | {key: 0 for key in summary if key.startswith("bytes_")}
    assert "The fleet made no release" in written(tmp_path, summary, [])
    assert "The fleet made no release" in printed(summary, width=80)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_table_has_the_numbers_and_fits(run: tuple[Any, Any], width: int) -> None:
    """Up as float32: 405 updates x 4 bytes x 26,122 values = 42.3 MB, over 3.08 MB sent = 13.7;
    gain 83.4 - 61.2 = 22.2 points of the 86.7 - 61.2 = 25.5 to the ceiling, 87 %.
    """
    summary, _ = run
    summary = summary | {"updates_accepted": 405, "bytes_up": 3_080_000}
    summary |= {"bytes_up_float32": 405 * 4 * 26_122}
    text = printed(summary, width=width)
    assert all(len(line) <= min(width, 100) for line in text.splitlines())
    joined = " ".join(text.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    for said in (
        "40 from 12 vehicles",
        "405 accepted",
        "4 refused (4 body)",
        "3.1 MB, 14x less than float32 adapters (42 MB)",
        "61.2 % 83.4 % +22.2",
        "86.7 % 87 % of the way",
        "3,820 requests, none failed",
        "a Serve replica died and was replaced",
    ):
        assert said in joined


def test_table_says_how_many_incidents_it_left_out(run: tuple[Any, Any]) -> None:
    summary, _ = run
    text = printed(summary | {"incidents": [f"thing {n}" for n in range(11)]}, width=80)
    assert "thing 7" in text
    assert "thing 8" not in text
    assert "and 3 more" in text


def test_elements_escape_text_and_attributes() -> None:
    inner = element("b", "<&>")
    assert inner == "<b>&lt;&amp;&gt;</b>"
    assert element("a", inner, None, data_tip='"', class_="x", id=None) == (
        '<a data-tip="&quot;" class="x"><b>&lt;&amp;&gt;</b></a>'
    )


def test_probes_are_pooled_over_equal_stretches() -> None:
    """31 s of 10 requests in bins of 2 s (31 / 2 < 30): 2 x 10 requests, 5 + 9 right = 0.7, and
    an error of sqrt(0.7 x 0.3 / 20) = 0.1025.
    """
    probes = [
        {"at": float(s), "requests": 10, "right": 9 if s % 2 else 5, "version": s}
        for s in range(32)
    ]
    first = binned(probes)[0]
    assert (first.begin_s, first.end_s, first.requests, first.version) == (0, 2, 20, 1)
    assert first.accuracy == pytest.approx(0.7)
    assert first.error == pytest.approx(0.1025, abs=1e-4)


def test_seconds_without_a_request_are_left_out() -> None:
    assert binned([{"at": 3.0, "requests": 0, "right": 0, "version": 1}]) == []


def test_dead_vehicle_is_absent_until_it_says_something() -> None:
    """Died at 20, its last will at 21, up again at 40; stopped with the fleet at 60."""
    told = [
        (0, "vehicle_started"),
        (10, "accepted"),
        (20, "vehicle_died"),
        (21, "offline"),
        (40, "vehicle_started"),
        (45, "online"),
        (59, "accepted"),
        (60, "offline"),
    ]
    history = History([{"time": 1000 + t, "event": kind, "vehicle": "v0"} for t, kind in told])
    assert history.absences("v0") == [Absence(20, 40, died=True)]
    assert history.last_state("v0") == "online"


def test_vehicle_that_stays_dead_is_absent_to_the_end() -> None:
    told = [(0, "v0", "online"), (5, "v0", "vehicle_died"), (6, "v0", "offline")]
    told += [(9, "v1", "accepted"), (10, "v1", "offline")]
    history = History([{"time": t, "event": kind, "vehicle": v} for t, v, kind in told])
    assert history.absences("v0") == [Absence(5, 10, died=True)]
    assert history.last_state("v0") == "died"


@pytest.mark.parametrize(
    ("staleness", "colour"), [(0, "s0"), (1, "s1"), (3, "s2"), (4, "s3"), (7, "s3"), (50, "s4")]
)
def test_staleness_has_five_colours(staleness: int, colour: str) -> None:
    assert staleness_class(staleness) == colour


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (figures.size(999), "999 B"),
        (figures.size(3_080_000), "3.1 MB"),
        (figures.size(9.2e9), "9.2 GB"),
        (figures.compared(100, 1300), "13x less"),
        (figures.compared(300, 200), "1.5x more"),
        (figures.compared(100, 102), "as much"),
        (figures.compared(0, 102), ""),
        (figures.points(0.5, 0.25), f"{figures.MINUS}25.0"),
        (figures.count(1, "release"), "1 release"),
        (figures.duration(187.2), "3 min 07 s"),
        (figures.duration(3600 * 2 + 120), "2 h 02 min"),
        (figures.clock(3725), "1:02:05"),
    ],
)
def test_figures_read_as_people_write_them(given: str, text: str) -> None:
    assert given == text
