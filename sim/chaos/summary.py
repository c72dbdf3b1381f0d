"""Summary of many chaos runs, as figures and as a table. It reads nothing but the lines of results."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table

SETS = ("lost", "counted_twice", "unresolved", "unheard_of")
"""Keys of a result that list wrongly treated updates; any entry fails the run."""


def has_failed(result: dict[str, Any]) -> bool:
    """Whether the run did not recover, ended with other bits than its replay, or mistreated an update."""
    return bool(result["why"]) or not result["same_bits"] or any(result[key] for key in SETS)


def described(result: dict[str, Any]) -> str:
    """The result of one run as one line of text."""
    faults = "; ".join(fault["name"] for fault in result["faults"])
    wrong = [f"{len(result[key])} {key.replace('_', ' ')}" for key in SETS if result[key]]
    if not result["same_bits"]:
        wrong.append("other bits")
    if result["why"]:
        wrong.append(result["why"])
    return (
        f"seed {result['seed']}: {result['broker']}{', endpoint' * result['endpoint']} ({faults}): "
        f"{result['counted']} counted in {result['seconds']:.0f} s, {', '.join(wrong) or 'all well'}"
    )


TOLD = (
    "runs",
    "produced",
    "receipted",
    "counted",
    "lost",
    "lost_with_host",
    "counted_twice",
    "unresolved",
    "not_recovered",
)
SPREADS = ("recovery_s", "ray_restart_s")
BUILT_AGAIN = ("kill gateway", "kill aggregator")


def told(summary: dict[str, Any]) -> dict[str, Any]:
    """The figures of the summary that `--json` prints."""
    spreads = {key: {k: summary[key][k] for k in ("median", "worst")} for key in SPREADS}
    return {key: summary[key] for key in TOLD} | spreads


def summarized(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over all results.

    `recovery_s` is the time from Ray's restart of a killed gateway or aggregator, which takes
    `ray_restart_s`, until a vehicle has a receipt. `recovery_s_by_fault` has all faults by name, other ones
    from their repair.
    """
    return {
        "runs": len(results),
        **_totals(results),
        **_recovery(results),
        "brokers": _counts([result["broker"] for result in results]),
        "with_endpoint": sum(bool(r["endpoint"]) for r in results),
        "faults": _counts([fault["name"] for result in results for fault in result["faults"]]),
        "failed_seeds": [result["seed"] for result in results if has_failed(result)],
    }


def _totals(results: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Numbers of updates, releases and unsuccessful runs."""
    added = ("produced", "receipted", "counted", "expired")
    return {
        **{key: sum(r[key] for r in results) for key in added},
        **{key: sum(len(r[key]) for r in results) for key in SETS},
        "lost_with_host": sum(len(r.get("lost_with_host", ())) for r in results),
        "not_recovered": sum(bool(r["why"]) for r in results),
        "other_bits": sum(not r["same_bits"] for r in results),
        "begun_again": sum("first_try" in r for r in results),
        "releases": sum(r["releases"] for r in results),
    }


def _recovery(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Recovery times, seconds, over the runs."""
    recoveries = [each for result in results for each in result["recoveries"]]
    built_again = [each for each in recoveries if each["fault"] in BUILT_AGAIN]
    return {
        "recovery_s": _spread([each["ours_s"] for each in built_again]),
        "ray_restart_s": _spread([each["ray_s"] for each in built_again]),
        "recovery_s_by_fault": _by(recoveries),
    }


def _by(recoveries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for fault in sorted({each["fault"] for each in recoveries}):
        mine = [each for each in recoveries if each["fault"] == fault]
        found[fault] = _spread([each["ours_s"] for each in mine])
        ray = [each["ray_s"] for each in mine if each["ray_s"]]
        if ray:
            found[fault]["ray"] = _spread(ray)
    return found


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"count": 0, "median": None, "worst": None}
    return {
        "count": len(seconds),
        "median": round(median(seconds), 2),
        "worst": round(max(seconds), 2),
    }


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def table(summary: dict[str, Any]) -> Table:
    """Number of injections and recovery times of each fault, as a table for the terminal."""
    made = Table(title=f"{summary['runs']} chaos runs", title_justify="left")
    for title in ("fault", "times", "back after", "worst", "Ray's restart", "worst"):
        made.add_column(title, justify="left" if title == "fault" else "right")
    for name, times in summary["faults"].items():
        ours = summary["recovery_s_by_fault"].get(name, {})
        ray = ours.get("ray", {})
        seconds = (ours.get("median"), ours.get("worst"), ray.get("median"), ray.get("worst"))
        made.add_row(name, str(times), *("" if s is None else f"{s:.1f} s" for s in seconds))
    return made


def _with_hosts(number: int) -> str:
    return f"{number} counted after the last backup and lost with the host, " if number else ""


def headline(summary: dict[str, Any]) -> str:
    """Totals over all runs as one sentence."""
    return (
        f"{summary['produced']:,} updates produced, {summary['receipted']:,} with a receipt, "
        f"{summary['counted']:,} counted: {summary['lost']} lost, "
        f"{_with_hosts(summary['lost_with_host'])}"
        f"{summary['counted_twice']} counted twice, {summary['unresolved']} unresolved; "
        f"{summary['not_recovered']} of {summary['runs']} runs did not come back, "
        f"{summary['other_bits']} ended with other bits, "
        f"{summary['begun_again']} began only at the second try"
    )
