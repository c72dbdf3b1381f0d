"""Renders the summary of `status.py` as a terminal table: problems in red, unknown values as dashes."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

STATES = {
    "online": "[green]online[/]",
    "offline": "[red]offline[/]",
    "refused": "[red]REFUSED[/]",
    "unheard": "[yellow]never heard[/]",
}


def rendered(about: Mapping[str, Any]) -> RenderableType:
    """The server's parts, the vehicles and their notes; `about` is a `status.summary`."""
    vehicles = about["vehicles"]
    return Group(_server(about), "", _vehicles(vehicles), *_notes(vehicles))


def _server(about: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    aggregator, endpoint = about["aggregator"], about["endpoint"]
    table.add_row(*_part(aggregator), _aggregator(aggregator))
    for gateway in about["gateways"]:
        table.add_row(*_part(gateway), _gateway(gateway))
    if (evaluator := about["evaluator"]) is not None:
        score = (
            f"version {_number(evaluator['version'])}: {_number(100 * evaluator['accuracy'], 1)} %"
        )
        table.add_row(*_part(evaluator), score)
    if endpoint is not None:
        for replica in endpoint["replicas"]:
            table.add_row(*_part(replica), _replica(replica))
        ready = "[green]ready[/]" if endpoint["is_ready"] else "[red]NOT READY[/]"
        table.add_row("endpoint", ready, "")
    return table


def _part(about: Mapping[str, Any]) -> tuple[str, str]:
    up = "[green]up[/]" if about["is_up"] else "[red]AWAY[/]"
    restarts = about.get("restarts", 0)
    if restarts and not math.isnan(restarts):
        up += f" [yellow]{_number(restarts)} restarts[/]"
    return about["part"], up


def _aggregator(about: Mapping[str, Any]) -> str:
    refused = ", ".join(f"{reason} {_number(n)}" for reason, n in about["refused"].items())
    verdicts = about["verdicts"]
    lines = [
        f"version {_number(about['version'])}, {_number(about['buffered'])} of {_number(about['goal'])} "
        f"updates towards the next; "
        f"row {_number(about['counted_row'])} counted, {_number(about['lag_rows'])} behind the journal; "
        f"{_number(about['updates_per_s'], 1)} updates/s",
        f"accepted {_number(verdicts.get('accepted', 0))}, "
        f"duplicate {_number(verdicts.get('duplicate', 0))}, "
        f"refused {_number(verdicts.get('refused', 0))}{f' ({refused})' if refused else ''}; "
        f"staleness {_within(about['staleness'], '', 1)}",
        f"checkpoint {_number(about['checkpoint_age_s'], 1)} s ago"
        + _alarm(about["checkpoints_failed"], "checkpoints failed")
        + _alarm(about["event_lines_missing"], "lines missing in events.jsonl"),
    ]
    if about["banned"]:
        lines.append(f"banned: {escape(', '.join(about['banned']))}")
    return "\n".join(lines)


def _gateway(about: Mapping[str, Any]) -> str:
    said = (
        f"{_number(about['updates_per_s'], 1)} updates/s, {_number(about['in_flight'])} in flight, "
        f"commit {_within(about['commit_s'], ' ms', 1000)}, malformed {_number(about['malformed'])}"
        + _alarm(about["limited"], "packets above server.limits")
    )
    if about["is_up"] and not about["is_connected"]:
        said += ", [red]NO BROKER[/]"
    return said if about["is_keeping"] else said + ", [red]THE JOURNAL TAKES NOTHING[/]"


def _replica(about: Mapping[str, Any]) -> str:
    return (
        f"version {_number(about['version'])}, {_number(about['requests'])} requests, "
        f"{_within(about['request_s'], ' ms', 1000)}" + _alarm(about["server_errors"], "failed")
    )


def _vehicles(vehicles: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("vehicle", "", "version", "behind", "waiting", "dropped", "heard"):
        table.add_column(heading)
    for about in vehicles:
        state = about["state"]
        table.add_row(
            about["vehicle"],
            STATES.get(state, escape(state)) + (" [red]BANNED[/]" if about["banned"] else ""),
            _number(about["version"]) if about["version"] >= 0 else "-",
            _number(about["behind"]),
            str(about["waiting"]),
            escape(_dropped(about["outcomes"])) or "-",
            "-" if about["silent_s"] is None else f"{about['silent_s']:.0f} s ago",
        )
    return table


def _notes(vehicles: list[dict[str, Any]]) -> list[str]:
    """What hinders whom, each from the left edge: beside the table's columns nobody could read it."""
    told = [f"[bold]{v['vehicle']}[/] {escape(v['note'])}" for v in vehicles if v["note"]]
    return ["", *told] if told else []


def _dropped(outcomes: Mapping[str, int]) -> str:
    """Counts of updates that were neither accepted nor duplicates, by outcome, as text."""
    return ", ".join(
        f"{end} {n}" for end, n in outcomes.items() if n and end not in ("accepted", "duplicate")
    )


def _number(value: float, digits: int = 0) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def _within(histogram: Mapping[str, float], unit: str, scale: float) -> str:
    if not histogram["count"]:
        return "-"
    half, most = (
        f"≤ {scale * histogram[key]:g}{unit}"
        if math.isfinite(histogram[key])
        else "longer than is measured"
        for key in ("p50", "p99")
    )
    return f"{half} (half), {most} (99 %)"


def _alarm(count: float, what: str) -> str:
    return f", [red]{count:,.0f} {what}[/]" if count and not math.isnan(count) else ""
