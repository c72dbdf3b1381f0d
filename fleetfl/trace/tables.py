"""Tables and lines for a terminal about the lives of updates."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from fleetfl.registry.table import when

FIRST = ("at_s", "source", "folder", "what")
DATES = ("captured_from", "captured_to")


def update_table(rows: list[dict[str, Any]]) -> Table:
    """Table with one row for each update, from the rows of `life.row`."""
    table = Table()
    for name in ("update", "came to", "last heard of (UTC)", "release"):
        table.add_column(name)
    for name in ("base", "staleness", "bytes"):
        table.add_column(name, justify="right")
    for row in rows:
        outcome = row["outcome"] + (f" ({row['reason']})" if row["reason"] else "")
        numbers = ("" if row[n] is None else f"{row[n]:,}" for n in ("base", "staleness", "bytes"))
        at = "" if row["at_s"] is None else when(row["at_s"])
        table.add_row(row["update"], outcome, at, row["release"] or "", *numbers)
    return table


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Lines about one update from `life.told`: its outcome, then each source's facts by date."""
    outcome = told["outcome"] + (f" ({told['reason']})" if told["reason"] else "")
    release = f", in release {told['release']}" if told["release"] else ""
    yield f"update {told['update']} of {told['vehicle']}: {outcome}{release}"
    for note in told["notes"]:
        at = " " * 19 if note["at_s"] is None else when(note["at_s"])
        said = ", ".join(
            _said(k, v) for k, v in note.items() if k not in FIRST and v not in ("", None)
        )
        yield f"{at}  {note['source']:<9}{note['what']:<10}{said}  [{note['folder']}]"


def _said(name: str, value: Any) -> str:
    if name in DATES:
        return f"{name.replace('_', ' ')} {when(value)}"
    shown = (
        f"{value:,}" if name == "bytes" else f"{value:.4g}" if isinstance(value, float) else value
    )
    return f"{name.replace('_', ' ')} {shown}"
