"""Bytes against accuracy as one SVG file: a point a codec, its 95 % interval, ours in colour."""

import math
from collections.abc import Sequence
from typing import Any

from sim.report.charts import Scale
from sim.report.markup import Markup, element
from sim.report.picture import WIDTH, picture

HEIGHT = 430
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 54, 60
OURS = "spectral"
STYLE = """
text { paint-order: stroke; stroke: #fff; stroke-width: 3px; }
.zero { stroke: #9aa6b3; stroke-dasharray: 5 4; }
.theirs { fill: #7d8894; stroke: #7d8894; } .whisker { stroke-width: 1.5; stroke-opacity: .45; }
"""


def rate_curve(rows: Sequence[dict[str, Any]], *, about: str) -> str:
    """SVG of rows as `sim.bench.rate_accuracy.run` gives them; those without `loss_points` are left out."""
    rows = sorted(
        (row for row in rows if row["loss_points"] is not None), key=lambda r: r["bits_per_value"]
    )
    lows = [-row["loss_points"] - row["loss_ci95"] for row in rows]
    highs = [-row["loss_points"] + row["loss_ci95"] for row in rows]
    bottom = max(-12.0, math.floor(min([-1.0, *lows])))
    top = min(6.0, math.ceil(max([1.0, *highs])))
    across = Scale(math.log2(0.02), math.log2(40), LEFT, WIDTH - RIGHT)
    down = Scale(bottom, top, HEIGHT - BOTTOM, TOP)
    marks = [
        *_grid(across, down, int(bottom), int(top)),
        *(_point(row, across, down, number) for number, row in enumerate(rows)),
        element("text", "bits per value on the wire, all of the packet", x=LEFT, y=HEIGHT - 12),
    ]
    return picture(
        "Accuracy for bytes",
        about,
        marks,
        height=HEIGHT,
        left=LEFT,
        style=STYLE,
        label="Points of accuracy gained or lost against bits per value, one mark a codec",
    )


def _grid(across: Scale, down: Scale, bottom: int, top: int) -> list[Markup]:
    marks = []
    for points in range(bottom, top + 1):
        y = down.at(points)
        class_ = "grid" if points else "zero"
        marks.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_=class_))
        label = f"{points:+d}" if points else "float32"
        marks.append(element("text", label, x=LEFT - 8, y=y + 4, text_anchor="end"))
    for bits in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32):
        x = across.at(math.log2(bits))
        y = HEIGHT - BOTTOM
        marks.append(element("line", x1=x, x2=x, y1=TOP, y2=y, class_="grid"))
        marks.append(element("text", f"{bits:g}", x=x, y=y + 18, text_anchor="middle"))
    return marks


def _point(row: dict[str, Any], across: Scale, down: Scale, number: int) -> Markup:
    x = across.at(math.log2(row["bits_per_value"]))
    gain, spread = -row["loss_points"], row["loss_ci95"]
    whose = "ours" if row["kind"] == OURS else "theirs"
    # Neighbours' words would lie on each other: they stand below and above, near and far in turn.
    beside = (20, -24, 48, -52)[number % 4]
    return element(
        "g",
        element(
            "line",
            x1=x,
            x2=x,
            y1=down.at(gain - spread),
            y2=down.at(gain + spread),
            class_=f"whisker {whose}",
        ),
        element("circle", cx=x, cy=down.at(gain), r=5, class_=whose),
        element(
            "text",
            row["codec"],
            x=x,
            y=down.at(gain) + beside,
            text_anchor="middle",
            class_="strong" if whose == "ours" else None,
        ),
        element(
            "text",
            _size(row["mqtt_bytes"]),
            x=x,
            y=down.at(gain) + beside + 12,
            text_anchor="middle",
        ),
    )


def _size(num_bytes: float) -> str:
    return f"{num_bytes:,.0f} B" if num_bytes < 10_000 else f"{num_bytes / 1000:,.0f} KB"
