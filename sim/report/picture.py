"""A chart as an SVG file of its own, for pages that bring no style: docs, issues, slides."""

from collections.abc import Iterable

from sim.report.markup import Markup, element, joined

WIDTH = 860
STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #5b6876; }
.title { font-size: 16px; font-weight: 650; fill: #16202c; } .strong { fill: #16202c; font-weight: 600; }
.grid { stroke: #e2e6eb; } .ours { fill: #1f6feb; stroke: #1f6feb; }
"""


def picture(
    title: str,
    about: str,
    marks: Iterable[Markup],
    *,
    height: int,
    left: int,
    style: str = "",
    label: str,
) -> str:
    """Marks under a title and a line about them, which begin at `left`; `label` says what there is to see."""
    return element(
        "svg",
        element("style", Markup(STYLE + style)),
        element("rect", width=WIDTH, height=height, fill="#fff"),
        element("text", title, x=left, y=24, class_="title"),
        element("text", about, x=left, y=42),
        joined(marks),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        height=height,
        role="img",
        aria_label=label,
    )
