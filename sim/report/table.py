"""What a run came to, for a terminal of 80 columns or more. Knows summary.json and rich."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sim.report import figures

INCIDENTS_SHOWN = 8


def result_table(summary: dict[str, Any]) -> RenderableType:
    """`summary` as `sim.report.summary.summarize` gives it."""
    parts: list[RenderableType] = [
        Text(figures.headline(summary), style="bold"),
        Text(),
        _numbers(summary),
    ]
    if summary.get("accuracy", {}).get("start") is not None:
        parts += [Text(), _accuracy(summary["accuracy"])]
    if summary.get("incidents"):
        parts += [Text(), *_incidents(summary["incidents"])]
    about = f"{summary.get('name', 'fleet')}, {figures.duration(summary.get('duration_s', 0))}"
    foot = f"seed {summary.get('seed')}, commit {summary.get('commit')}"
    # Text and not str: a name may hold what rich takes for markup.
    return Panel(
        Group(*parts),
        title=Text(about),
        title_align="left",
        subtitle=Text(foot),
        subtitle_align="right",
        padding=(1, 2),
        width=100,
    )


def _numbers(summary: dict[str, Any]) -> Table:
    staleness, latency = summary.get("staleness", {}), summary.get("http_latency_ms", {})
    vehicles = figures.count(summary.get("num_vehicles", 0), "vehicle")
    updates = [
        f"{summary.get('updates_accepted', 0):,} accepted",
        figures.count(summary.get("updates_duplicate", 0), "duplicate"),
        figures.refusals(summary.get("updates_refused", {})),
    ]
    http = figures.requests(summary)
    if summary.get("http_requests"):
        http += f"; {latency.get('p50', 0):.0f} ms median, {latency.get('p99', 0):.0f} ms at p99"
    rows = {
        "Releases": f"{summary.get('releases', 0):,} from {vehicles}{_each(summary)}",
        "Updates": ", ".join(updates),
        "Staleness": f"{staleness.get('mean', 0):.1f} mean, {staleness.get('max', 0)} at most",
        "Sent up": _bytes(summary, "bytes_up", "bytes_up_float32", "bytes_full_model"),
        "Sent down": _bytes(summary, "bytes_down", "bytes_down_float32", None),
        "Endpoint": http,
    }
    if summary.get("clock") == "virtual":
        del rows["Endpoint"]
        rows["Energy"] = f"{summary['joules'] / 3600:,.2f} Wh in training and radio"
        rows["Time"] = (
            f"{figures.duration(summary['virtual_s'])} of the fleet in "
            f"{figures.duration(summary['wall_s'])} here"
        )
        rows["Taking part"] = (
            f"{figures.count(summary['vehicles_heard'], 'vehicle')}; "
            f"{figures.count(summary['trainings_lost'], 'training')} lost"
        )
    if summary.get("malformed"):
        rows["Malformed"] = f"{figures.count(summary['malformed'], 'frame')} that could not be read"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, Text(text))
    return table


def _each(summary: dict[str, Any]) -> str:
    per_release, per_snapshot = (summary.get(f"bytes_per_{k}", 0) for k in ("release", "snapshot"))
    if not per_release:
        return ""
    return f"; {figures.size(per_release)} each, a snapshot {figures.size(per_snapshot)}"


def _bytes(summary: dict[str, Any], ours: str, float32: str, full: str | None) -> str:
    sent = summary.get(ours, 0)
    said = [figures.size(sent)]
    for key, what in ((float32, "float32 adapters"), (full, "the full model")):
        theirs = summary.get(key, 0) if key else 0
        ratio = figures.compared(sent, theirs)
        if ratio:
            said.append(
                f"{ratio} {'as' if ratio == 'as much' else 'than'} {what} ({figures.size(theirs)})"
            )
    return ", ".join(said)


def _accuracy(accuracy: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=False)
    table.add_column("Served accuracy", no_wrap=True)
    for name in ("first", "last", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for condition, pair in accuracy.get("by_condition", {}).items():
        table.add_row(*_row(condition.replace("_", " "), pair["start"], pair["end"]))
    table.add_section()
    table.add_row(*_row("all", accuracy["start"], accuracy.get("end")), style="bold")
    way = figures.way_to_ceiling(accuracy)
    if way is not None:
        share = Text(f"{100 * way:.0f} % of the way", style="dim")
        table.add_row(
            Text("centralized, trained in one place", style="dim"),
            "",
            Text(figures.percent(accuracy["ceiling"]), style="dim"),
            share,
        )
    return table


def _row(name: str, start: float | None, end: float | None) -> tuple[Text, str, str, Text]:
    gain = figures.points(start, end)
    colour = "red" if gain.startswith(figures.MINUS) else "green"
    return Text(name), figures.percent(start), figures.percent(end), Text(gain, style=colour)


def _incidents(incidents: list[str]) -> list[RenderableType]:
    shown: list[RenderableType] = [Text("Incidents", style="dim")]
    shown += [Padding(Text(f"- {text}"), (0, 0, 0, 2)) for text in incidents[:INCIDENTS_SHOWN]]
    hidden = len(incidents) - INCIDENTS_SHOWN
    if hidden > 0:
        shown.append(Text(f"  and {hidden:,} more, in the report", style="dim"))
    return shown
