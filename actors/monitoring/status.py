"""Reads a server's monitor and summarises its health for `fleetfl status`. Knows only the two HTTP pages."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from fleetfl import FleetflError
from fleetfl.protocol.addresses import opener


class StatusError(FleetflError, RuntimeError):
    """No monitor answers; says where it was looked for."""


@dataclass(frozen=True)
class Look:
    """A monitor's metrics and vehicles, read at `at` (monotonic seconds)."""

    at: float
    metrics: dict[str, Metric]
    vehicles: list[dict[str, Any]]

    def value(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name and these labels; NaN if there are none."""
        found = [v for have, v in self.samples(name) if labels.items() <= have.items()]
        return sum(found) if found else math.nan

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums of the samples of this name and these labels, by each value of `label` that is not empty."""
        sums: dict[str, float] = {}
        for have, value in self.samples(name):
            if labels.items() <= have.items() and have.get(label):
                sums[have[label]] = sums.get(have[label], 0.0) + value
        return sums

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        return [
            (sample.labels, sample.value)
            for metric in self.metrics.values()
            if name.startswith(metric.name)
            for sample in metric.samples
            if sample.name == name
        ]

    def quantiles(self, name: str, part: str) -> dict[str, float]:
        """Number of observations, with the bucket bounds that 50 % and 99 % of them are within."""
        buckets = sorted(
            (float(have["le"]), value)
            for have, value in self.samples(f"{name}_bucket")
            if have["part"] == part
        )
        count = buckets[-1][1] if buckets else 0.0
        within = {
            key: next(
                (bound for bound, seen in buckets if count and seen >= share * count), math.nan
            )
            for key, share in (("p50", 0.5), ("p99", 0.99))
        }
        return {"count": count, **within}


def look(url: str, timeout_s: float = 15.0) -> Look:
    """Read the monitor at `url`. Raises StatusError if none answers there."""
    page, fleet = _fetched(f"{url}/metrics", timeout_s), _fetched(f"{url}/fleet", timeout_s)
    try:
        metrics = {m.name: m for m in text_string_to_metric_families(page.decode())}
        found = Look(time.monotonic(), metrics, json.loads(fleet))
        summary(found)
    except Exception as odd:
        raise StatusError(f"what answers at {url} is no fleetfl server: {odd}") from odd
    return found


def _fetched(url: str, timeout_s: float) -> bytes:
    try:
        with opener(url).open(url, timeout=timeout_s) as answer:
            return answer.read()
    except Exception as silent:  # no address, nobody there, or somebody who speaks no HTTP
        why = getattr(silent, "reason", None) or silent  # of a URLError; it wraps that in brackets
        raise StatusError(
            f"no server answers at {url}: {why}. `fleetfl server run` says where it does; "
            "name that with --url"
        ) from silent


def troubles(about: Mapping[str, Any]) -> list[str]:
    """The problems that keep a server of this summary from its work, one sentence each."""
    parts = [about["aggregator"], *about["gateways"], about["evaluator"]]
    endpoint = about["endpoint"]
    parts += [] if endpoint is None else endpoint["replicas"]
    found = [f"{part['part']} does not answer" for part in parts if part and not part["is_up"]]
    for gateway in about["gateways"]:
        if gateway["is_up"] and not gateway["is_connected"]:
            found.append(f"{gateway['part']} has no broker")
        if gateway["is_up"] and not gateway["is_keeping"]:
            found.append(f"{gateway['part']}: the journal takes nothing")
    if endpoint is not None and not endpoint["is_ready"]:
        found.append("the endpoint is not ready")
    return found


def summary(now: Look, before: Look | None = None) -> dict[str, Any]:
    """Plain values for the status table, NaN where unknown; rates need an earlier look `before`."""
    parts = now.by("part", "fleetfl_up")
    return {
        "vehicles": [_vehicle(about, now) for about in now.vehicles],
        "gateways": [_gateway(p, now, before) for p in parts if p.startswith("gateway")],
        "aggregator": _aggregator(now, before),
        "evaluator": _evaluator(now) if "evaluator" in parts else None,
        "endpoint": _endpoint(parts, now) if now.samples("fleetfl_endpoint_ready") else None,
    }


def _vehicle(about: dict[str, Any], now: Look) -> dict[str, Any]:
    newest = now.value("fleetfl_version", part="aggregator")
    held = about["version"]
    banned = about["vehicle"] in now.by("vehicle", "fleetfl_banned_vehicle")
    return {**about, "banned": banned, "behind": newest - held if held >= 0 else math.nan}


def _endpoint(parts: Iterable[str], now: Look) -> dict[str, Any]:
    return {
        "is_ready": now.value("fleetfl_endpoint_ready") == 1,
        "replicas": [_replica(p, now) for p in parts if p.startswith("replica")],
    }


def _process(part: str, now: Look) -> dict[str, Any]:
    return {
        "part": part,
        "is_up": now.value("fleetfl_up", part=part) == 1,
        "restarts": now.value("fleetfl_restarts_total", part=part),
    }


def _rate(name: str, part: str, now: Look, before: Look | None) -> float:
    if before is None or now.at <= before.at:
        return math.nan
    grown = now.value(name, part=part) - before.value(name, part=part)
    # A counter that shrank was reset with its process.
    return math.nan if grown < 0 else grown / (now.at - before.at)


def _gateway(part: str, now: Look, before: Look | None) -> dict[str, Any]:
    return {
        **_process(part, now),
        "is_connected": now.value("fleetfl_broker_connected", part=part) == 1,
        "is_keeping": now.value("fleetfl_journal_keeps", part=part) != 0,
        "updates_per_s": _rate("fleetfl_kept_updates_total", part, now, before),
        "in_flight": now.value("fleetfl_in_flight_updates", part=part),
        "commit_s": now.quantiles("fleetfl_journal_commit_seconds", part),
        "malformed": now.value("fleetfl_malformed_packets", part=part),
        "limited": now.value("fleetfl_limited_packets", part=part),
    }


def _events(event: str, part: str, now: Look) -> float:
    return now.by("event", "fleetfl_events_total", part=part).get(event, 0.0)


def _aggregator(now: Look, before: Look | None) -> dict[str, Any]:
    def value(name: str) -> float:
        return now.value(f"fleetfl_{name}", part="aggregator")

    return {
        **_process("aggregator", now),
        "version": value("version"),
        "counted_row": value("counted_row"),
        "lag_rows": value("journal_lag_rows"),
        "buffered": value("buffered_updates"),
        "goal": value("buffer_goal_updates"),
        "updates_per_s": _rate("fleetfl_updates_total", "aggregator", now, before),
        "staleness": now.quantiles("fleetfl_update_staleness_versions", "aggregator"),
        "verdicts": now.by("verdict", "fleetfl_updates_total"),
        "refused": now.by("reason", "fleetfl_updates_total", verdict="refused"),
        "checkpoint_age_s": value("checkpoint_age_seconds"),
        "checkpoints_failed": _events("checkpoint_failed", "aggregator", now),
        "event_lines_missing": value("event_lines_missing"),
        "banned": sorted(now.by("vehicle", "fleetfl_banned_vehicle")),
    }


def _evaluator(now: Look) -> dict[str, Any]:
    return {
        **_process("evaluator", now),
        "version": now.value("fleetfl_evaluated_version"),
        "accuracy": now.value("fleetfl_accuracy_ratio"),
    }


def _replica(part: str, now: Look) -> dict[str, Any]:
    codes = now.by("code", "fleetfl_requests_total", part=part)
    return {
        "part": part,
        "is_up": now.value("fleetfl_up", part=part) == 1,
        "version": now.value("fleetfl_served_version", part=part),
        "requests": sum(codes.values()),
        "server_errors": sum(n for code, n in codes.items() if code.startswith("5")),
        "request_s": now.quantiles("fleetfl_request_seconds", part),
    }
