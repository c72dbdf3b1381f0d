"""Recovery time after each fault: from the repair to the next receipt, with Ray's restart told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

AFTERMATH_S = 1.0
"""Seconds after a repair in which clients still reconnect, so that another fault's recovery is disturbed."""


@dataclass(frozen=True)
class Injected:
    """A fault that was injected, with its times in UTC seconds since 1970."""

    name: str
    at: float
    mended_at: float  # the former word for repaired: a key of results.jsonl
    """Time of the repair."""
    vehicle: str = ""
    """Name of the affected vehicle; empty if the fault affected no single vehicle."""


@dataclass(frozen=True)
class Recovery:
    """Recovery times after one fault."""

    fault: str
    ray_s: float
    """Seconds from the kill until Ray had restarted the actor; 0 for faults that Ray has no part in."""
    ours_s: float
    """Seconds from the restart, or from the repair, until a vehicle had a receipt."""


def recoveries(
    injected: Sequence[Injected],
    events: Sequence[dict[str, Any]],
    receipts: Sequence[dict[str, Any]],
) -> list[Recovery]:
    """Recovery times of the faults whose recovery no other fault disturbed."""
    ray = [_ray_s(fault, injected, events) for fault in injected]
    up_at = [f.mended_at + (s or 0.0) for f, s in zip(injected, ray, strict=True)]
    found = []
    for fault, ray_s, from_s in zip(injected, ray, up_at, strict=True):
        again_at = _next_receipt_at(fault, from_s, receipts)
        if ray_s is None or again_at is None:
            continue
        others = [(o, up) for o, up in zip(injected, up_at, strict=True) if o is not fault]
        if any(_in_the_way(o, up, from_s, again_at) for o, up in others):
            continue
        found.append(Recovery(fault.name, round(ray_s, 3), round(again_at - from_s, 3)))
    return found


def _next_receipt_at(
    fault: Injected, from_s: float, receipts: Sequence[dict[str, Any]]
) -> float | None:
    """Time of the first receipt from `from_s` on: the affected vehicle's, or anyone's if it affected none."""
    mine = (r["time"] for r in receipts if fault.vehicle in ("", r["vehicle"]))
    return min((t for t in mine if t >= from_s), default=None)


def _in_the_way(other: Injected, other_up_at: float, from_s: float, until: float) -> bool:
    return other.at < until and from_s < other_up_at + AFTERMATH_S


def _ray_s(
    fault: Injected, injected: Sequence[Injected], events: Sequence[dict[str, Any]]
) -> float | None:
    """Seconds that Ray took to restart the killed actor; None if it did not, 0 for other faults."""
    who = fault.name.removeprefix("kill ")
    if who == fault.name:
        return 0.0
    for event in events:
        if event["event"] == f"{who}_started" and event["time"] > fault.at:
            if any(
                o.name.startswith("server") and fault.at < o.at < event["time"] for o in injected
            ):
                return None  # a new server did
            return max(0.0, event["time"] - event.get("seconds", 0.0) - fault.at)
    return None
