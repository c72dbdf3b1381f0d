"""Numbers as people read them, and the one sentence a run comes to."""

from typing import Any

MINUS = "\N{MINUS SIGN}"


def percent(fraction: float | None) -> str:
    """61.2 %"""
    return "unknown" if fraction is None else f"{100 * fraction:.1f} %"


def points(start: float | None, end: float | None) -> str:
    """+22.2, in points of a per cent; empty if one of them is unknown."""
    if start is None or end is None:
        return ""
    return f"{100 * (end - start):+.1f}".replace("-", MINUS)


def way_to_ceiling(accuracy: dict[str, Any]) -> float | None:
    """Share of the way from start to ceiling; None if there is no such way."""
    start, end, centralized_baseline = (
        accuracy.get("start"),
        accuracy.get("end"),
        accuracy.get("ceiling"),
    )
    if (
        start is None
        or end is None
        or centralized_baseline is None
        or centralized_baseline <= start
    ):
        return None
    return (end - start) / (centralized_baseline - start)


def size(num_bytes: float) -> str:
    """3.1 MB; a kB is 1000 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{short(num_bytes)} {unit}"
        num_bytes /= 1000
    return f"{short(num_bytes)} TB"


def compared(ours: float, theirs: float) -> str:
    """13x less; empty if there is nothing to compare."""
    if ours <= 0 or theirs <= 0:
        return ""
    less, more = theirs / ours, ours / theirs
    if max(less, more) < 1.05:
        return "as much"
    return f"{short(less)}x less" if less > 1 else f"{short(more)}x more"


def short(number: float) -> str:
    """Two digits that count below ten, whole numbers with commas above."""
    return f"{number:.1f}".removesuffix(".0") if number < 9.95 else f"{number:,.0f}"


def count(number: int, noun: str) -> str:
    """no update, 1 update, 4,812 updates"""
    if number == 0:
        return f"no {noun}"
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def clock(seconds: float) -> str:
    """Since the run began: 3:07, or 1:02:00 past an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def refusals(reasons: dict[str, int]) -> str:
    """5 refused (3 stale, 2 body)"""
    if not reasons:
        return "none refused"
    each = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
    return f"{sum(reasons.values()):,} refused ({each})"


def requests(summary: dict[str, Any]) -> str:
    """4,812 requests, none failed"""
    made, failed = summary.get("http_requests", 0), summary.get("http_failures", 0)
    if not made:
        return "no request made"
    return f"{count(made, 'request')}, {f'{failed:,} failed' if failed else 'none failed'}"


def headline(summary: dict[str, Any]) -> str:
    """The fleet went from 61.2 % to 83.4 % under its own weather, 41 releases, no failed request"""
    accuracy = summary.get("accuracy", {})
    releases = count(summary.get("releases", 0), "release")
    failed = count(summary.get("http_failures", 0), "failed request")
    end = f"{releases}, {failed}" if summary.get("http_requests") else releases
    if accuracy.get("start") is None or accuracy.get("end") is None:
        return f"The fleet made {end}"
    start, now = percent(accuracy["start"]), percent(accuracy["end"])
    return f"The fleet went from {start} to {now} under its own weather, {end}"
