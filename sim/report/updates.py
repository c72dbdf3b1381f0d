"""What the vehicles sent: how stale it was, and what it weighed on the radio."""

import math
from typing import Any

from sim.report.charts import Label, Scale, bar, plot, rule, words
from sim.report.figures import compared, count, size
from sim.report.markup import Markup

HEIGHT = 236.0
ROW = 40.0
MOST_BARS = 24
STALENESS_STEPS = (0, 1, 2, 4, 8)
"""The least staleness of each colour."""


def staleness_class(staleness: int) -> str:
    """s0 (fresh) to s4"""
    return f"s{sum(staleness >= step for step in STALENESS_STEPS) - 1}"


def staleness_keys() -> list[tuple[str, str]]:
    """For a legend: what each colour stands for."""
    return [("s0", "fresh"), ("s1", "1 late"), ("s2", "2-3"), ("s3", "4-7"), ("s4", "8 or more")]


def staleness_histogram(summary: dict[str, Any]) -> Markup | None:
    """Accepted updates by staleness; None if there was none."""
    bars = {int(late): n for late, n in summary["staleness"].get("histogram", {}).items()}
    if not bars:
        return None
    # The tail shares the last bar.
    last = min(max(bars), MOST_BARS - 1)
    heights = [bars.get(late, 0) for late in range(last + 1)]
    heights[last] += sum(n for late, n in bars.items() if late > last)
    names = [str(late) for late in range(last + 1)]
    if max(bars) > last:
        names[last] += "+"
    down, width = Scale(0, max(heights), HEIGHT, 22), 100 / max(6, last + 1)
    marks = [rule(y=HEIGHT, class_="axis")]
    under: list[Label] = []
    for late, n in enumerate(heights):
        middle, top = (late + 0.5) * width, down.at(n)
        under.append(Label(middle, names[late]))
        if n:
            tip = f"{count(n, 'update')} of staleness {names[late]}"
            marks += [
                bar(
                    middle - 0.4 * width,
                    top,
                    width=0.8 * width,
                    height=HEIGHT - top,
                    class_=staleness_class(late),
                    tip=tip,
                ),
                words(middle, top - 6, f"{n:,}", class_="middle small"),
            ]
    return plot(marks, name="Staleness of accepted updates", height=HEIGHT, under=under, gutter=0)


def bytes_bars(summary: dict[str, Any]) -> Markup | None:
    """On a log scale, one tick a power of ten; None if nothing was sent."""
    up, down = summary.get("bytes_up", 0), summary.get("bytes_down", 0)
    rows = [
        ("up, as sent", up, up, "ours"),
        ("as float32", summary.get("bytes_up_float32", 0), up, "theirs"),
        ("full model", summary.get("bytes_full_model", 0), up, "theirs"),
        ("down, as sent", down, down, "ours"),
        ("as float32", summary.get("bytes_down_float32", 0), down, "theirs"),
    ]
    rows = [row for row in rows if row[1] > 0]
    if not rows:
        return None
    decades = [math.log10(num_bytes) for _, num_bytes, _, _ in rows]
    low, high = math.floor(min(decades) - 0.3), math.ceil(max(decades))
    across, height = Scale(low, high, 0, 96), ROW * len(rows)
    step = max(1, (high - low) // 4)
    ticks = list(range(low, high + 1, step))
    marks = [rule(x=across.at(tick), height=height) for tick in ticks]
    for nth, ((_, num_bytes, ours, kind), decade) in enumerate(zip(rows, decades, strict=True)):
        end, top = across.at(decade), nth * ROW + 8
        said = size(num_bytes)
        if kind == "theirs" and ours:
            said += f", {compared(num_bytes, ours)}"
        inside = end > 55
        marks += [
            bar(0, top, width=end, height=ROW - 16, class_=kind, tip=said),
            words(
                end,
                top + 16,
                said,
                class_=f"{'end on-' + kind if inside else 'halo'} strong",
                dx=-8 if inside else 8,
            ),
        ]
    beside = [Label(nth * ROW + ROW / 2, row[0]) for nth, row in enumerate(rows)]
    under = [Label(across.at(tick), size(10.0**tick)) for tick in ticks]
    return plot(
        marks, name="Bytes on the radio", height=height, beside=beside, under=under, gutter=104
    )
