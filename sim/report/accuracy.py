"""How well the fleet's model did: over time through the endpoint, and under each weather."""

import math
from dataclasses import dataclass
from typing import Any

from sim.report.charts import (
    STEPS_S,
    Label,
    Scale,
    area,
    dot,
    legend,
    line,
    plot,
    rule,
    symbol,
    time_labels,
    words,
)
from sim.report.figures import clock, percent, points
from sim.report.history import Event, History
from sim.report.markup import Markup, element, joined

HEIGHT = 260.0
ROW = 34.0
MOST_BINS = 30
DIAMOND = "M0,-5L5,0L0,5L-5,0Z"


@dataclass(frozen=True)
class Bin:
    """Requests of one stretch of time, pooled: a second alone has too few to say anything."""

    begin_s: float
    end_s: float
    requests: int
    right: int
    version: int

    @property
    def accuracy(self) -> float:
        return self.right / self.requests

    @property
    def error(self) -> float:
        """One standard error of a share: sqrt(p (1 - p) / n)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.requests)


def binned(probes: list[Event]) -> list[Bin]:
    """At most MOST_BINS of equal length; stretches without a request have none."""
    if not probes:
        return []
    last_s = probes[-1]["at"]
    span = last_s - probes[0]["at"]
    width = next((s for s in STEPS_S if span / s <= MOST_BINS), STEPS_S[-1])
    pooled: dict[int, list[Event]] = {}
    for probe in probes:
        if probe["requests"]:
            pooled.setdefault(int(probe["at"] // width), []).append(probe)
    return [
        Bin(
            begin_s=nth * width,
            end_s=min((nth + 1) * width, last_s),
            requests=sum(probe["requests"] for probe in some),
            right=sum(probe["right"] for probe in some),
            version=some[-1]["version"],
        )
        for nth, some in pooled.items()
    ]


def over_time(summary: dict[str, Any], history: History) -> Markup | None:
    """None if nobody measured anything."""
    bins, evaluated = binned(history.of("probe")), history.of("evaluated")
    if not bins and not evaluated:
        return None
    accuracy = summary.get("accuracy", {})
    known = [accuracy[key] for key in ("start", "ceiling") if accuracy.get(key) is not None]
    known += [e["accuracy"] for e in evaluated]
    known += [b.accuracy for b in bins]
    down, ticks = _accuracy_scale(known)
    across = Scale(0, history.end_s)
    labels = time_labels(history.end_s)
    marks = [rule(y=down.at(tick)) for tick in ticks]
    marks += _known_lines(accuracy, down)
    marks += _served(bins, across, down)
    marks += _evaluated(evaluated, across, down)
    marks += _disturbances(history, across)
    keys = [("served", "through the endpoint, with one standard error")] if bins else []
    keys.append(
        ("evaluated", "evaluator, each release" if bins else "each release that was scored")
    )
    if history.of("vehicle_died") or history.replicas_restarted():
        keys.append(("disturbance", "a vehicle or a replica died"))
    beside = [Label(down.at(tick), f"{100 * tick:.0f} %") for tick in ticks]
    name = "Accuracy over time"
    return joined(
        [legend(keys), plot(marks, name=name, height=HEIGHT, beside=beside, under=labels)]
    )


def _accuracy_scale(values: list[float]) -> tuple[Scale, list[float]]:
    """Whole tens of per cents around the values, and those tens."""
    low = max(0, math.floor((min(values) - 0.02) * 10))
    high = min(10, math.ceil((max(values) + 0.02) * 10))
    step = 1 if high - low <= 6 else 2
    return Scale(low / 10, high / 10, HEIGHT, 0), [n / 10 for n in range(low, high + 1, step)]


def _known_lines(accuracy: dict[str, Any], down: Scale) -> list[Markup]:
    marks: list[Markup] = []
    start, centralized_baseline = accuracy.get("start"), accuracy.get("ceiling")
    # Curves rise from lower left to upper right; the other two corners are free for words.
    if start is not None:
        text = f"start {percent(start)}"
        marks += [
            rule(y=down.at(start), class_="known"),
            words(100, down.at(start) + 16, text, class_="end halo"),
        ]
    if centralized_baseline is not None:
        text = f"centralized {percent(centralized_baseline)}, trained in one place"
        marks += [
            rule(y=down.at(centralized_baseline), class_="known"),
            words(0, down.at(centralized_baseline) - 7, text, class_="halo"),
        ]
    return marks


def _served(bins: list[Bin], across: Scale, down: Scale) -> list[Markup]:
    if not bins:
        return []
    middles = [across.at((b.begin_s + b.end_s) / 2) for b in bins]
    above = [(x, down.at(b.accuracy + b.error)) for x, b in zip(middles, bins, strict=True)]
    below = [(x, down.at(b.accuracy - b.error)) for x, b in zip(middles, bins, strict=True)]
    curve = [(x, down.at(b.accuracy)) for x, b in zip(middles, bins, strict=True)]
    tips = [
        f"{clock(b.begin_s)} to {clock(b.end_s)}: {percent(b.accuracy)} of {b.requests:,} "
        f"requests, release {b.version}"
        for b in bins
    ]
    return [
        area([*above, *reversed(below)], height=HEIGHT, class_="error"),
        line(curve, height=HEIGHT, class_="served"),
        *(
            dot(x, y, class_="served", tip=tip, radius=2.5)
            for (x, y), tip in zip(curve, tips, strict=True)
        ),
    ]


def _evaluated(events: list[Event], across: Scale, down: Scale) -> list[Markup]:
    return [
        dot(
            across.at(event["at"]),
            down.at(event["accuracy"]),
            class_="evaluated",
            tip=f"release {event['version']}: {percent(event['accuracy'])} at {clock(event['at'])}",
        )
        for event in events
    ]


def _disturbances(history: History, across: Scale) -> list[Markup]:
    said = [(e["at"], f"{e['vehicle']} died") for e in history.of("vehicle_died")]
    said += [(e["at"], "a replica was replaced") for e in history.replicas_restarted()]
    return [
        symbol(across.at(at), HEIGHT - 7, DIAMOND, class_="disturbance", tip=f"{clock(at)} {what}")
        for at, what in said
    ]


def by_condition(summary: dict[str, Any]) -> Markup | None:
    """First and last, a row a weather; None if unknown."""
    accuracy = summary.get("accuracy", {})
    rows = {
        name.replace("_", " "): (pair["start"], pair["end"])
        for name, pair in accuracy.get("by_condition", {}).items()
    }
    if not rows:
        return None
    if accuracy.get("start") is not None and accuracy.get("end") is not None:
        rows["all"] = (accuracy["start"], accuracy["end"])
    values = [value for pair in rows.values() for value in pair]
    low, high = min(values), max(values)
    # Room for a number at the left, for one and the gain at the right.
    across = Scale(low, high if high > low else low + 0.1, 18, 64)
    marks: list[Markup] = []
    beside: list[Label] = []
    for nth, (name, (start, end)) in enumerate(rows.items()):
        y = nth * ROW + ROW / 2
        beside.append(Label(y, name, "strong" if name == "all" else None))
        marks += _dumbbell(start, end, y, across, f"{name}: {percent(start)} to {percent(end)}")
    chart = plot(
        marks, name="Accuracy by weather", height=ROW * len(rows), beside=beside, gutter=92
    )
    return joined([legend([("before", "first release"), ("after", "last release")]), chart])


def _dumbbell(start: float, end: float, y: float, across: Scale, tip: str) -> list[Markup]:
    first, last = across.at(start), across.at(end)
    loss = "" if end >= start else "loss"
    low, high = min(start, end), max(start, end)
    span = {"x1": f"{first:.2f}%", "x2": f"{last:.2f}%", "y1": y, "y2": y}
    return [
        rule(y=y),
        element("line", class_=f"gain {loss}", **span),
        dot(first, y, class_="before", tip=tip, radius=5),
        dot(last, y, class_=f"after {loss}", tip=tip, radius=6),
        words(across.at(low), y + 4, f"{100 * low:.1f}", class_="end halo", dx=-10),
        words(across.at(high), y + 4, f"{100 * high:.1f}", class_="halo", dx=10),
        words(100, y + 4, points(start, end), class_=f"end halo strong gain {loss}"),
    ]
