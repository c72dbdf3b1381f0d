"""The comparison as one HTML page: curves in virtual time, a table, who is left behind, what it cost."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sim.compare.results import HEADINGS, Result, cells
from sim.compare.run import Standing
from sim.report import figures
from sim.report.charts import (
    Label,
    Scale,
    area,
    bar,
    dot,
    legend,
    line,
    plot,
    rule,
    time_labels,
    words,
)
from sim.report.document import columns, document, section
from sim.report.markup import Markup, element, joined

HEIGHT = 280.0
ROW = 34.0
HUES = ("#1f6feb", "#e8663c", "#0a8f7a", "#7d4fd3", "#c13d95", "#b58900", "#5b6876", "#d1343f")
COLOURS = "".join(
    f"polyline.h{n} {{ stroke: {hue}; }} polygon.h{n} {{ fill: {hue}; fill-opacity: .12; }} "
    f"circle.h{n}, rect.h{n} {{ fill: {hue}; }} .key.h{n} {{ background: {hue}; }}\n"
    for n, hue in enumerate(HUES)
)


def written(standing: Standing) -> Path:
    """RUNS/FLEET/compare.html"""
    path = standing.folder / "compare.html"
    config = standing.config
    path.write_text(page(standing.results, name=config.fleet, against=config.against))
    return path


def page(results: Sequence[Result], *, name: str, against: str) -> str:
    """Of a finished comparison, in the order of the contestants."""
    scenarios = list(dict.fromkeys(result.scenario for result in results))
    hues = {
        candidate: f"h{n % len(HUES)}"
        for n, candidate in enumerate(dict.fromkeys(result.candidate for result in results))
    }
    parts = [
        _scenario(scenario, [r for r in results if r.scenario == scenario], hues, against)
        for scenario in scenarios
    ]
    seeds = max((result.seeds for result in results), default=0)
    over = f"{name} \N{MIDDLE DOT} {figures.count(seeds, 'seed')} \N{MIDDLE DOT} mean and 95 % interval"
    head = element("header", element("p", over, class_="over"), element("h1", _headline(results)))
    return document(f"{name}: fleetfl", element("main", head, *parts), css=COLOURS)


def _headline(results: Sequence[Result]) -> str:
    told = [result for result in results if result.seconds is not None]
    if not told:
        return "Nobody reached the target"
    first = min(told, key=lambda result: result.seconds[0] if result.seconds else math.inf)
    return f"{first.candidate} is the first to the target in {first.scenario}"


def _scenario(
    scenario: str, results: Sequence[Result], hues: dict[str, str], against: str
) -> Markup:
    target = figures.percent(results[0].target)
    sooner = f"Sooner: than {against}, on the same seeds."
    return joined(
        [
            section(
                f"{scenario}: accuracy over virtual time",
                _curves(results, hues),
                f"Held-out frames. Dashed: the target, {target}. Bands are 95 % intervals over seeds.",
            ),
            section(f"{scenario}: the table", _table(results), sooner, long=True),
            columns(
                section(
                    "Slowest and fastest fifth",
                    _bars(results, hues, lambda r: 100 * r.behind[0], "points"),
                    "How much less accurate the model is on the slowest vehicles' own frames.",
                ),
                section(
                    "The same of what each gained",
                    _bars(results, hues, lambda r: 100 * r.gained_less[0], "points"),
                    "Some vehicles have harder frames: here only the gain since the first model counts.",
                ),
            ),
            columns(
                section(
                    "Energy",
                    _bars(results, hues, lambda r: r.joules[0] / 3.6e6, "kWh"),
                    "Of all vehicles that trained, in vain too.",
                ),
                section(
                    "Sent up",
                    _bars(results, hues, lambda r: r.bytes_up[0] / 1e6, "MB"),
                    "Updates of the whole run.",
                ),
            ),
            section(
                f"{scenario}: staleness",
                _staleness(results, hues),
                "Share of the accepted updates that are so many versions late, in octaves.",
            ),
        ]
    )


def _curves(results: Sequence[Result], hues: dict[str, str]) -> Markup:
    lows = [mean - half for r in results for _, mean, half in r.curve]
    highs = [mean + half for r in results for _, mean, half in r.curve]
    low, high = max(0.0, min(lows)), min(1.0, max(highs))
    down = Scale(math.floor(20 * low) / 20, math.ceil(20 * high) / 20, HEIGHT, 0)
    end_s = max(result.curve[-1][0] for result in results)
    across = Scale(0, end_s)
    ticks = [n / 20 for n in range(round(20 * down.first), round(20 * down.last) + 1)]
    marks = [rule(y=down.at(tick)) for tick in ticks]
    target = results[0].target
    marks.append(rule(y=down.at(target), class_="known"))
    for result in results:
        hue = hues[result.candidate]
        above = [(across.at(s), down.at(mean + half)) for s, mean, half in result.curve]
        below = [(across.at(s), down.at(mean - half)) for s, mean, half in result.curve]
        middle = [(across.at(s), down.at(mean)) for s, mean, _ in result.curve]
        marks.append(area([*above, *reversed(below)], height=HEIGHT, class_=hue))
        marks.append(line(middle, height=HEIGHT, class_=hue))
        if result.seconds is not None:
            tip = f"{result.candidate}: at the target after {figures.duration(result.seconds[0])}"
            marks.append(dot(across.at(result.seconds[0]), down.at(target), class_=hue, tip=tip))
    beside = [Label(down.at(tick), f"{100 * tick:.0f} %") for tick in ticks]
    keys = [(hues[result.candidate], result.candidate) for result in results]
    chart = plot(
        marks,
        name="Accuracy over virtual time",
        height=HEIGHT,
        beside=beside,
        under=time_labels(end_s),
    )
    return joined([legend(keys), chart])


def _table(results: Sequence[Result]) -> Markup:
    heads = (*HEADINGS, "values")
    rows = [
        element(
            "tr",
            *(element("td", text) for text in cells(result)),
            element("td", ", ".join(f"{k.split('.')[-1]} {v}" for k, v in result.choice.items())),
        )
        for result in results
    ]
    table = element(
        "table",
        element("thead", element("tr", *(element("th", text) for text in heads))),
        element("tbody", *rows),
    )
    return element("div", table, class_="wide")


def _bars(
    results: Sequence[Result], hues: dict[str, str], figure: Callable[[Result], float], unit: str
) -> Markup:
    values = [float(figure(result)) for result in results]
    low, high = min(0.0, *values), max(0.0, *values)
    across = Scale(low, high if high > low else low + 1, 4, 78)
    marks, beside = [], []
    for n, (result, value) in enumerate(zip(results, values, strict=True)):
        y = n * ROW + ROW / 2
        first, last = sorted((across.at(0), across.at(value)))
        beside.append(Label(y, result.candidate))
        text = f"{value:,.2f} {unit}"
        tip = f"{result.candidate}: {text}"
        marks += [
            bar(
                first, y - 8, width=last - first, height=16, class_=hues[result.candidate], tip=tip
            ),
            words(last, y + 4, text, dx=6),
        ]
    return plot(marks, name=unit, height=ROW * len(results), beside=beside, gutter=132)


def _staleness(results: Sequence[Result], hues: dict[str, str]) -> Markup:
    """A group of bars an octave: 0, 1, 2-3, 4-7, 8-15, ..."""
    shares = {result.candidate: _octaves(result.staleness) for result in results}
    octaves = max((max(one, default=0) for one in shares.values()), default=0) + 1
    most = max((max(one.values(), default=0.0) for one in shares.values()), default=0.0) or 1.0
    down, width = Scale(0, most, HEIGHT / 2, 6), 100 / octaves
    each = 0.86 * width / max(1, len(shares))
    marks = [rule(y=HEIGHT / 2, class_="axis")]
    for n, (candidate, one) in enumerate(shares.items()):
        for octave, share in one.items():
            top = down.at(share)
            marks.append(
                bar(
                    (octave + 0.07) * width + n * each,
                    top,
                    width=0.9 * each,
                    height=HEIGHT / 2 - top,
                    class_=hues[candidate],
                    tip=f"{candidate}: {figures.percent(share)} are {_octave_name(octave)} late",
                )
            )
    under = [Label((n + 0.5) * width, _octave_name(n)) for n in range(octaves)]
    return plot(marks, name="Staleness", height=HEIGHT / 2, under=under, gutter=0)


def _octaves(staleness: dict[str, int]) -> dict[int, float]:
    whole = sum(staleness.values()) or 1
    found: dict[int, float] = {}
    for late, n in staleness.items():
        octave = int(late).bit_length()
        found[octave] = found.get(octave, 0.0) + n / whole
    return found


def _octave_name(octave: int) -> str:
    low, high = (1 << octave) >> 1, max(0, (1 << octave) - 1)
    return str(low) if low == high else f"{low}-{high}"
