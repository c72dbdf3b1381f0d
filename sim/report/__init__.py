"""What a run came to, as one HTML file to look at, send or print. Knows summary and events."""

from pathlib import Path
from typing import Any

from sim.report.history import History
from sim.report.page import Pictures, page

__all__ = ["Pictures", "write_report"]


def write_report(
    path: Path,
    summary: dict[str, Any],
    events: list[dict[str, Any]],
    *,
    pictures: Pictures | None = None,
) -> None:
    """Self-contained: no network, no library. `summary` as `sim.report.summary.summarize` gives it."""
    text = page(summary, History(events), pictures or ())
    # A lone surrogate from some vehicle's words must not cost the whole report.
    path.write_text(text, encoding="utf-8", errors="replace")
