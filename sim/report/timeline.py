"""The run as a picture: a lane a vehicle, a dot an update, a line down for each release."""

from typing import Any

from sim.report.charts import Label, Scale, bar, dot, legend, plot, rule, symbol, time_labels
from sim.report.figures import clock, size
from sim.report.history import Event, History
from sim.report.markup import Markup, joined
from sim.report.updates import staleness_class, staleness_keys

HEAD = 16.0
MOST_DOTS = 20_000
"""Browsers grow slow past this; every n-th update is drawn then."""
CROSS = "M-5,-5L5,5M5,-5L-5,5"
TRIANGLE = "M-4,-3.5L4,-3.5L0,4.5Z"


def swim_lanes(summary: dict[str, Any], history: History) -> Markup | None:
    """None if no vehicle was heard of."""
    vehicles = list(dict.fromkeys([*summary.get("vehicles", {}), *sorted(history.vehicles)]))
    if not vehicles:
        return None
    lane = max(6.0, min(24.0, 800 / len(vehicles)))
    height = HEAD + lane * len(vehicles)
    middles = {name: HEAD + lane * (nth + 0.5) for nth, name in enumerate(vehicles)}
    across = Scale(0, history.end_s)
    marks = _releases(history.of("released"), across, height)
    for name, y in middles.items():
        marks += _lane(name, history, across, y)
    marks += _updates(history.of("accepted"), across, middles, min(3.5, lane * 0.3))
    marks += _incidents(history, across, middles)
    beside = [Label(y, name) for name, y in middles.items()] if lane >= 11 else []
    drawn = plot(
        marks,
        name="Updates of every vehicle over time",
        height=height,
        beside=beside,
        under=time_labels(history.end_s),
        gutter=min(120, 16 + 7 * max(map(len, vehicles))) if beside else 8,
    )
    return joined([_legend(history), drawn])


def _legend(history: History) -> Markup:
    keys = [*staleness_keys(), ("release", "release")]
    if history.of("refused"):
        keys.append(("refused", "refused"))
    if any(history.absences(vehicle) for vehicle in history.vehicles):
        keys.append(("absent", "offline"))
    if history.of("vehicle_died"):
        keys.append(("death", "died"))
    return legend(keys)


def _releases(events: list[Event], across: Scale, height: float) -> list[Markup]:
    return [rule(x=across.at(event["at"]), height=height, class_="release") for event in events]


def _lane(vehicle: str, history: History, across: Scale, y: float) -> list[Markup]:
    gaps = [
        bar(
            across.at(gap.begin_s),
            y - 5,
            width=max(0.3, across.at(gap.end_s) - across.at(gap.begin_s)),
            height=10,
            class_="absent",
            tip=f"{vehicle} {'dead' if gap.died else 'offline'} "
            f"from {clock(gap.begin_s)} to {clock(gap.end_s)}",
        )
        for gap in history.absences(vehicle)
    ]
    return [rule(y=y, class_="lane"), *gaps]


def _updates(
    events: list[Event], across: Scale, middles: dict[str, float], radius: float
) -> list[Markup]:
    stride = -(-len(events) // MOST_DOTS) or 1
    return [
        dot(
            across.at(event["at"]),
            middles[event["vehicle"]],
            class_=staleness_class(event["staleness"]),
            tip=_told(event),
            radius=radius,
        )
        for event in events[::stride]
    ]


def _told(event: Event) -> str:
    loss = event.get("loss")
    return (
        f"{event['vehicle']} at {clock(event['at'])}: update {event.get('sequence', '')} "
        f"on release {event.get('base', 'unknown')}, staleness {event['staleness']}, "
        f"{size(event.get('bytes', 0))}" + ("" if loss is None else f", loss {loss:.2f}")
    )


def _incidents(history: History, across: Scale, middles: dict[str, float]) -> list[Markup]:
    refused = [
        symbol(
            across.at(event["at"]),
            middles[event["vehicle"]],
            TRIANGLE,
            class_="refused",
            tip=f"{event['vehicle']} at {clock(event['at'])}: refused ({event['reason']}) "
            f"{event.get('detail', '')}",
        )
        for event in history.of("refused")
    ]
    died = [
        symbol(
            across.at(event["at"]),
            middles[event["vehicle"]],
            CROSS,
            class_="death",
            tip=f"{event['vehicle']} died at {clock(event['at'])} (code {event.get('code')})",
        )
        for event in history.of("vehicle_died")
    ]
    return refused + died
