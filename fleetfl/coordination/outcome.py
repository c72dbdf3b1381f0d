"""What became of an update, and how it is told. Knows no I/O."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from fleetfl.protocol.messages import ROLLED_BACK, Update


class Refusal(str, Enum):
    """Why an update was not counted."""

    LAYOUT = "layout"  # another adapter than ours
    GENERATION = (
        "generation"  # based on another server's versions, or those from before a new beginning
    )
    FUTURE = "future"  # based on a version that was never released
    BASE = "base"  # based on other bits than its base version has here
    STALE = "stale"  # older than max_staleness versions
    ROLLED_BACK = ROLLED_BACK  # trained from a version that was rolled back
    BODY = "body"  # not what its codec packs
    NOT_FINITE = "not_finite"
    DECLINED = "declined"  # the aggregator has no use for it: its round has ended, for instance
    SIZE = "size"  # so long that it cannot be an update
    STEP = (
        "step"  # the step that it completed failed or made no sense; the others stay in the buffer
    )
    BANNED = "banned"  # its vehicle is, by whoever runs the server
    EARLIER = "earlier"  # refused before; why is no longer known
    BUG = "bug"  # judging it failed on our side


@dataclass(frozen=True)
class Outcome:
    """What became of one update."""

    verdict: Literal["accepted", "duplicate", "refused"]
    version: int
    """The server's version after it."""
    staleness: int = 0
    """Versions between its base and its use."""
    reason: Refusal | None = None
    detail: str = ""
    """The value that was refused and what was expected, in words."""
    released: bool = False
    """It filled the buffer: `version` is new."""
    share: float = 1.0
    """Of its delta that was counted: less than 1 if it was longer than the bound."""


def judged(
    update: Update, outcome: Outcome, *, num_bytes: int, row: int
) -> tuple[str, dict[str, Any]]:
    """The event that tells it, name and fields. `num_bytes` is the size of the update's frame."""
    seen: dict[str, Any] = {
        "vehicle": update.vehicle,
        "boot": update.boot,
        "sequence": update.sequence,
        "base": update.base_version,
        "staleness": outcome.staleness,
        "bytes": num_bytes,
        "row": row,
    }
    if outcome.reason is not None:
        return "refused", {**seen, "reason": outcome.reason.value, "detail": outcome.detail}
    told = {**seen, "loss": update.loss, "num_examples": update.num_examples}
    if outcome.share < 1:
        told["clipped_to"] = round(outcome.share, 4)
    return outcome.verdict, told
