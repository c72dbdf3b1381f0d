"""How long it took after each fault until updates were taken again, and which part of that was Ray's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Struck:
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
    struck: Sequence[Struck],
    events: Sequence[dict[str, Any]],
    receipts: Sequence[dict[str, Any]],
) -> list[Recovery]:
    """Of the faults that had the time to themselves: what two did together is neither's."""
    found = []
    for fault in struck:
        ray_s = _ray_s(fault, events)
        if ray_s is None:
            continue
        up_at = fault.mended_at + ray_s
        mine = [r["time"] for r in receipts if fault.vehicle in ("", r["vehicle"])]
        again_at = min((t for t in mine if t >= up_at), default=None)
        if again_at is None or any(_overlap(fault, again_at, o) for o in struck if o is not fault):
            continue
        found.append(Recovery(fault.name, round(ray_s, 3), round(again_at - up_at, 3)))
    return found


def _ray_s(fault: Struck, events: Sequence[dict[str, Any]]) -> float | None:
    """None if the actor did not come back; 0 for a fault that Ray has no part in."""
    who = fault.name.removeprefix("kill ")
    if who == fault.name:
        return 0.0
    for event in events:
        if event["event"] == f"{who}_started" and event["time"] > fault.at:
            return max(0.0, event["time"] - event.get("seconds", 0.0) - fault.at)
    return None


def _overlap(fault: Struck, until: float, other: Struck) -> bool:
    return other.at < until and fault.at < other.mended_at + 1.0
