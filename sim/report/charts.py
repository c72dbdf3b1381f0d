"""The few shapes that our charts are made of, as SVG. They know scales and nothing of fleets.

Across, places are per cents of the plot; down, pixels. So a chart fits any screen and its text
keeps its size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sim.report.figures import clock
from sim.report.markup import Markup, element, joined

AXIS_HEIGHT = 24
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Scale:
    """From values to places: `first` lies at `begin`, `last` at `end`."""

    first: float
    last: float
    begin: float = 0.0
    end: float = 100.0

    def at(self, value: float) -> float:
        """Values past the ends stay at the ends."""
        span = (self.last - self.first) or 1.0
        share = min(1.0, max(0.0, (value - self.first) / span))
        return self.begin + share * (self.end - self.begin)


@dataclass(frozen=True)
class Label:
    at: float
    """Pixels down beside the plot, per cent across under it."""
    text: str
    class_: str | None = None


def plot(
    marks: Iterable[Markup],
    *,
    name: str,
    height: float,
    beside: Sequence[Label] = (),
    under: Sequence[Label] = (),
    gutter: int = 44,
) -> Markup:
    """Marks with words to their left and below; `name` is what a screen reader says."""
    whole = height + (AXIS_HEIGHT if under else 0)
    left = [
        element(
            "text", label.text, x=gutter - 8, y=label.at + 4, class_=f"end {label.class_ or ''}"
        )
        for label in beside
    ]
    below = [
        element("text", label.text, x=f"{label.at:.2f}%", y=height + 18, class_=_anchor(label.at))
        for label in under
    ]
    return element(
        "div",
        element("svg", *left, width=gutter, height=whole, class_="gutter", aria_hidden="true"),
        element("svg", *marks, *below, width="100%", height=whole, role="img", aria_label=name),
        class_="plot",
    )


def _anchor(at: float) -> str:
    return "end" if at > 96 else "middle"


def rule(
    *, x: float | None = None, y: float | None = None, height: float = 0.0, class_: str = "grid"
) -> Markup:
    """A line across at `y`, or down at `x`."""
    if x is None:
        return element("line", x1="0%", x2="100%", y1=y, y2=y, class_=class_)
    return element("line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=0, y2=height, class_=class_)


def line(places: Sequence[tuple[float, float]], *, height: float, class_: str) -> Markup:
    return _stretched("polyline", places, height, class_)


def area(places: Sequence[tuple[float, float]], *, height: float, class_: str) -> Markup:
    return _stretched("polygon", places, height, class_)


def _stretched(
    shape: str, places: Sequence[tuple[float, float]], height: float, class_: str
) -> Markup:
    # Points of a polyline cannot be per cents, but the picture it lies in can be stretched.
    listed = " ".join(f"{x:.2f},{y:.1f}" for x, y in places)
    return element(
        "svg",
        element(shape, points=listed, class_=class_, vector_effect="non-scaling-stroke"),
        viewBox=f"0 0 100 {height:g}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
    )


def dot(x: float, y: float, *, class_: str, tip: str, radius: float = 3.0) -> Markup:
    return element("circle", cx=f"{x:.2f}%", cy=y, r=radius, class_=class_, data_tip=tip)


def symbol(x: float, y: float, path: str, *, class_: str, tip: str) -> Markup:
    """A path drawn around 0, 0."""
    drawn = element("path", d=path, class_=class_, data_tip=tip)
    return element("svg", drawn, x=f"{x:.2f}%", y=y, width=1, height=1, overflow="visible")


def bar(
    x: float, y: float, *, width: float, height: float, class_: str, tip: str | None = None
) -> Markup:
    return element(
        "rect",
        x=f"{x:.2f}%",
        y=y,
        width=f"{width:.2f}%",
        height=height,
        rx=2,
        class_=class_,
        data_tip=tip,
    )


def words(x: float, y: float, text: str, *, class_: str = "", dx: float = 0) -> Markup:
    return element("text", text, x=f"{x:.2f}%", y=y, dx=dx, class_=class_)


def time_labels(end_s: float, *, most: int = 6) -> list[Label]:
    """Round moments from 0 to the end, as places on Scale(0, end_s)."""
    step = next((s for s in STEPS_S if end_s / s <= most), math.ceil(end_s / most))
    moments = [n * step for n in range(int(end_s // step) + 1)]
    return [Label(100 * moment / end_s, clock(moment)) for moment in moments]


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """(class of the mark, words)"""
    keys = [element("li", element("i", class_=f"key {mark}"), text) for mark, text in entries]
    return element("ul", joined(keys), class_="legend")
