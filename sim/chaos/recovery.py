"""How long it took after each fault until updates were taken again, and which part of that was Ray's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

AFTERMATH_S = 1.0
"""After a fault was mended, until all have their connections again."""


@dataclass(frozen=True)
class Injected:
    """A fault as it was in a run; UTC seconds."""

    name: str
    at: float
    mended_at: float
    vehicle: str = ""
    """The one that it struck; empty if it was not one of them."""


@dataclass(frozen=True)
class Recovery:
    fault: str
    ray_s: float
    """From the kill until Ray had built the actor again."""
    ours_s: float
    """From there, or from when the fault was mended, until a vehicle had a receipt."""


def recoveries(
    struck: Sequence[Injected],
    events: Sequence[dict[str, Any]],
    receipts: Sequence[dict[str, Any]],
) -> list[Recovery]:
    """Of the faults that nothing else was in the way of: what two did together is neither's."""
    ray = [_ray_s(fault, struck, events) for fault in struck]
    up_at = [f.mended_at + (s or 0.0) for f, s in zip(struck, ray, strict=True)]
    found = []
    for fault, ray_s, from_s in zip(struck, ray, up_at, strict=True):
        mine = [r["time"] for r in receipts if fault.vehicle in ("", r["vehicle"])]
        again_at = min((t for t in mine if t >= from_s), default=None)
        if ray_s is None or again_at is None:
            continue
        others = [(o, up) for o, up in zip(struck, up_at, strict=True) if o is not fault]
        if any(_in_the_way(o, up, from_s, again_at) for o, up in others):
            continue
        found.append(Recovery(fault.name, round(ray_s, 3), round(again_at - from_s, 3)))
    return found


def _in_the_way(other: Injected, other_up_at: float, from_s: float, until: float) -> bool:
    return other.at < until and from_s < other_up_at + AFTERMATH_S


def _ray_s(
    fault: Injected, struck: Sequence[Injected], events: Sequence[dict[str, Any]]
) -> float | None:
    """None if Ray did not build the actor again; 0 for a fault that Ray has no part in."""
    who = fault.name.removeprefix("kill ")
    if who == fault.name:
        return 0.0
    for event in events:
        if event["event"] == f"{who}_started" and event["time"] > fault.at:
            if any(o.name.startswith("server") and fault.at < o.at < event["time"] for o in struck):
                return None  # a new server did
            return max(0.0, event["time"] - event.get("seconds", 0.0) - fault.at)
    return None
