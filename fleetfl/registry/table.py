"""Releases as rows of plain values, and as tables for a terminal. Reads nothing."""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import msgspec
from rich.table import Table

from fleetfl.registry.diff import Change
from fleetfl.registry.registry import Entry, best_of


def rows(entries: list[Entry]) -> list[dict[str, Any]]:
    """A row for each release, oldest first; ready for JSON."""
    best = best_of(entries)
    targets = {e.record.restores for e in entries if e.record is not None}
    return [
        _row(
            entry,
            [
                *(["newest"] if entry is entries[-1] else []),
                *(["best"] if entry is best else []),
                *(["rolled back to"] if entry.name in targets else []),
            ],
        )
        for entry in entries
    ]


def _row(entry: Entry, marks: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "version": entry.version,
        "generation": entry.generation,
    }
    record = entry.record
    if record is None:
        return {**row, "bytes": entry.num_bytes, "damage": entry.damage, "marks": ["DAMAGED"]}
    return {
        **row,
        "parent": record.parent,
        "restores": record.restores,
        "created": record.created,
        "updates": None if record.updates is None else len(record.updates),
        "accuracy": None if entry.scores is None else entry.scores.accuracy,
        "bytes": entry.num_bytes,
        "sha256": record.sha256,
        "marks": marks,
    }


def release_table(listed: list[dict[str, Any]]) -> Table:
    """Table for a terminal from the rows of `rows`."""
    table = Table()
    for name in ("version", "generation", "parent", "made (UTC)", "sha256", ""):
        table.add_column(name)
    for name in ("updates", "accuracy", "KB"):
        table.add_column(name, justify="right")
    for row in listed:
        made_of = row.get("updates")
        marks = [*row["marks"], *([f"bits of {row['restores']}"] if row.get("restores") else [])]
        table.add_row(
            str(row["version"]),
            row["generation"],
            row.get("parent") or "",
            when(row["created"]) if "created" in row else "",
            row.get("sha256", "")[:12],
            ", ".join(marks),
            "" if made_of is None else str(made_of),
            percent(row.get("accuracy")),
            f"{row['bytes'] / 1000:.1f}",
        )
    return table


def about(entry: Entry, settings: dict[str, Any] | None) -> dict[str, Any]:
    """All that is known of a whole release; ready for JSON."""
    assert entry.record is not None, "a damaged release is an error before"
    scores = None if entry.scores is None else msgspec.to_builtins(entry.scores)
    return {
        "name": entry.name,
        **msgspec.to_builtins(entry.record),
        "path": str(entry.path),
        "bytes": entry.num_bytes,
        "scores": scores,
        "settings": settings,
    }


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Lines for a terminal from the facts that `about` gives of a release."""
    import yaml

    updates, settings, scores = told["updates"], told["settings"], told["scores"]
    for name, value in told.items():
        if name not in ("updates", "settings", "scores", "name") and value not in (None, ""):
            shown = when(value) + " UTC" if name == "created" else value
            yield f"{name:<12}{shown}"
    if scores is not None:
        yield f"accuracy    {percent(scores['accuracy'])}"
        yield from (f"  {name:<20}{percent(s)}" for name, s in scores["by_condition"].items())
    if updates is None:
        yield "updates     not known"
    else:
        yield f"updates     {len(updates)}"
        for each in updates:
            yield (
                f"  {each['vehicle']} boot {each['boot']} sequence {each['sequence']}: "
                f"{each['num_examples']} examples, {each['staleness']} versions late"
            )
    if settings is not None:
        yield "settings"
        yield from (f"  {line}" for line in yaml.safe_dump(settings).splitlines())


def change_table(changed: list[Change]) -> Table:
    """Table for a terminal of the differences between two releases."""
    table = Table()
    table.add_column("tensor")
    for name in ("values", "norm", "change", "relative", "cosine", "largest"):
        table.add_column(name, justify="right")
    for each in changed:
        relative = f"{each.change / each.norm:.1%}" if each.norm else ""
        figures = (f"{each.norm:.4g}", f"{each.change:.4g}", relative, f"{each.cosine:.5f}")
        table.add_row(each.tensor, f"{each.num_values:,}", *figures, f"{each.largest:+.3g}")
    return table


def score_table(a: Entry, b: Entry) -> Table:
    """Accuracies of two releases side by side; an entry is empty where a release was not scored."""
    table = Table()
    table.add_column("accuracy")
    for entry in (a, b):
        table.add_column(entry.name, justify="right")
    table.add_row("all", *(percent(e.scores and e.scores.accuracy) for e in (a, b)))
    conditions = {name for e in (a, b) if e.scores for name in e.scores.by_condition}
    for name in sorted(conditions):
        table.add_row(
            name, *(percent(e.scores and e.scores.by_condition.get(name)) for e in (a, b))
        )
    return table


def changes_in_json(changed: list[Change], a: Entry, b: Entry) -> dict[str, Any]:
    """Differences between two releases, and their scores; ready for JSON."""
    scores = {e.name: e.scores and msgspec.to_builtins(e.scores) for e in (a, b)}
    return {"tensors": [msgspec.to_builtins(each) for each in changed], "scores": scores}


def when(seconds: float) -> str:
    """Date and time, UTC, of UTC seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def percent(share: float | None) -> str:
    """A share from 0 to 1 as a percentage; empty for None."""
    return "" if share is None else f"{share:.1%}"
