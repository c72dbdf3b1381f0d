"""The report as one HTML page, from top to bottom. Nothing in it is loaded from elsewhere."""

import base64
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sim.report import accuracy, figures, updates
from sim.report.document import columns, document, section
from sim.report.history import History
from sim.report.markup import Markup, element, joined
from sim.report.timeline import swim_lanes

Pictures = Sequence[tuple[str, bytes]]
"""(caption, PNG); neighbours of one caption share it."""

INCIDENTS_SHOWN = 12


def page(summary: dict[str, Any], history: History, pictures: Pictures) -> str:
    body = element(
        "main",
        _header(summary),
        _cards(summary),
        _accuracy(summary, history),
        columns(
            section(
                "By weather",
                accuracy.by_condition(summary),
                "Per cent right, with the first release and with the last.",
            ),
            section(
                "Staleness",
                updates.staleness_histogram(summary),
                "Accepted updates by the number of releases since the one they built on.",
            ),
        ),
        section(
            "On the radio",
            updates.bytes_bars(summary),
            "Bytes of the whole run, beside what raw float32 would weigh. Log scale.",
        ),
        section(
            "The run",
            swim_lanes(summary, history),
            "A lane a vehicle, a dot an accepted update, a line down for each release.",
        ),
        _vehicles(summary, history),
        _incidents(summary),
        _cameras(pictures),
        _settings(summary),
    )
    return document(f"{summary.get('name', 'fleet')}: fleetfl", body)


def _accuracy(summary: dict[str, Any], history: History) -> Markup | None:
    name, about = "Accuracy of the releases", "On held-out frames under the fleet's weather."
    if history.of("probe"):
        name = "Accuracy through the endpoint"
        about = "Held-out frames under the fleet's weather, sent to the HTTP endpoint all along."
    return section(name, accuracy.over_time(summary, history), about)


def _header(summary: dict[str, Any]) -> Markup:
    vehicles = figures.count(summary.get("num_vehicles", 0), "vehicle")
    over = [summary.get("name", "fleet"), vehicles, figures.duration(summary.get("duration_s", 0))]
    if "started_at" in summary:
        over.append(str(summary["started_at"]).replace("T", " ").replace("+00:00", " UTC"))
    return element(
        "header",
        element("p", " \N{MIDDLE DOT} ".join(over), class_="over"),
        element("h1", figures.headline(summary)),
    )


def _pace(summary: dict[str, Any]) -> str:
    releases, each = summary.get("releases", 0), summary.get("bytes_per_release", 0)
    if not releases:
        return ""
    pace = f"one every {summary.get('duration_s', 0) / releases:.1f} s"
    return f"{pace}, {figures.size(each)} each" if each else pace


def _cards(summary: dict[str, Any]) -> Markup:
    scores, is_virtual = summary.get("accuracy", {}), summary.get("clock") == "virtual"
    refused, duplicate = summary.get("updates_refused", {}), summary.get("updates_duplicate", 0)
    up = summary.get("bytes_up", 0)
    lighter = figures.compared(up, summary.get("bytes_up_float32", 0))
    releases = summary.get("releases", 0)
    staleness = summary.get("staleness", {})
    cards = [
        (
            "Accuracy" if is_virtual else "Served accuracy",
            figures.percent(scores.get("end")),
            _gain(scores),
        ),
        ("Releases", f"{releases:,}", _pace(summary)),
        (
            "Updates accepted",
            f"{summary.get('updates_accepted', 0):,}",
            f"{figures.refusals(refused)}, {figures.count(duplicate, 'duplicate')}",
        ),
        (
            "Mean staleness",
            f"{staleness.get('mean', 0):.1f}",
            f"releases late, {staleness.get('max', 0)} at most",
        ),
        ("Sent up", figures.size(up), f"{lighter} than float32 adapters" if lighter else ""),
        _energy(summary) if is_virtual else _endpoint(summary),
    ]
    return element("div", *(_card(*card) for card in cards), class_="cards")


def _endpoint(summary: dict[str, Any]) -> tuple[str, str, str]:
    middle = summary.get("http_latency_ms", {}).get("p50")
    took = "unknown" if middle is None else f"{middle:.0f} ms"
    return "Endpoint, median", took, figures.requests(summary)


def _energy(summary: dict[str, Any]) -> tuple[str, str, str]:
    joules = summary.get("joules", 0.0)
    each = joules / max(1, summary.get("updates_accepted", 0))
    return "Energy, training and radio", f"{joules / 3.6e6:.3g} kWh", f"{each:.3g} J an update"


def _gain(scores: dict[str, Any]) -> str:
    gain, way = (
        figures.points(scores.get("start"), scores.get("end")),
        figures.way_to_ceiling(scores),
    )
    if not gain:
        return ""
    return f"{gain} points" + (
        "" if way is None else f", {100 * way:.0f} % of the way to the centralized baseline"
    )


def _card(what: str, value: str, more: str) -> Markup:
    return element(
        "div",
        element("div", what, class_="what"),
        element("div", value, class_="value"),
        element("div", more, class_="more"),
        class_="card",
    )


def _vehicles(summary: dict[str, Any], history: History) -> Markup:
    vehicles = summary.get("vehicles", {})
    if not vehicles:
        return Markup("")
    heads = [
        ("vehicle", None),
        ("weather", None),
        ("accepted", "number"),
        ("refused", "number"),
        ("staleness", "number"),
        ("up", "number"),
        ("last state", "state"),
        ("incidents", None),
    ]
    rows = [_vehicle(name, about, history) for name, about in vehicles.items()]
    table = element(
        "table",
        element("thead", element("tr", *(element("th", text, class_=c) for text, c in heads))),
        element("tbody", *rows),
    )
    return section("Vehicle by vehicle", element("div", table, class_="wide"), long=True)


def _vehicle(name: str, about: dict[str, Any], history: History) -> Markup:
    state, told = history.last_state(name), history.vehicles.get(name, [])
    noise = sum(event["vehicle"] == name for event in history.of("malformed"))
    happened = [figures.count(about.get("deaths", 0), "death")] if about.get("deaths") else []
    if noise:
        happened.append(figures.count(noise, "broken frame"))
    happened += dict.fromkeys(event["note"] for event in told if event.get("note"))
    mean = about.get("staleness_mean") or 0.0
    colour = element("i", class_=f"key {updates.staleness_class(round(mean))}")
    weather = f"{str(about.get('condition', '')).replace('_', ' ')} {about.get('severity', '')}"
    return element(
        "tr",
        element("td", name),
        element("td", weather),
        element("td", f"{about.get('accepted', 0):,}", class_="number"),
        element("td", f"{about.get('refused', 0):,}", class_="number"),
        element("td", colour, f"{mean:.1f}", class_="number"),
        element("td", figures.size(about.get("bytes_up", 0)), class_="number"),
        element("td", state, class_=f"state {state}"),
        element("td", "; ".join(happened)),
    )


def _incidents(summary: dict[str, Any]) -> Markup:
    said = [element("li", text) for text in summary.get("incidents", [])]
    if not said:
        return section("Incidents", element("p", "None."))
    shown = element("ul", *said[:INCIDENTS_SHOWN], class_="incidents")
    rest = said[INCIDENTS_SHOWN:]
    if rest:
        more = element("summary", f"{len(rest):,} more")
        shown = joined([shown, element("details", more, element("ul", *rest, class_="incidents"))])
    return section("Incidents", shown, long=True)


def _cameras(pictures: Pictures) -> Markup:
    shown = [
        element(
            "figure",
            element("div", *(_picture(caption, png) for _, png in some)),
            element("figcaption", caption.replace("_", " ")),
        )
        for caption, some in groupby(pictures, key=lambda pair: pair[0])
    ]
    content = element("div", *shown, class_="cameras") if shown else None
    return section("What the cameras saw", content, "Held-out frames, pixel by pixel.")


def _picture(caption: str, png: bytes) -> Markup:
    body = base64.b64encode(png).decode()
    return element("img", src=f"data:image/png;base64,{body}", alt=caption)


def _settings(summary: dict[str, Any]) -> Markup:
    named = {
        "config": summary.get("config"),
        "seed": summary.get("seed"),
        "commit": summary.get("commit"),
        "values trained": f"{summary['num_values']:,}" if "num_values" in summary else None,
        "precision": summary.get("precision"),
        "instructions": summary.get("instructions"),
        "versions": ", ".join(f"{name} {v}" for name, v in summary.get("versions", {}).items()),
    }
    rows = [
        joined([element("dt", name), element("dd", value)])
        for name, value in named.items()
        if value not in (None, "")
    ]
    return section("Settings", element("dl", *rows, class_="settings") if rows else None)
