"""The outcome of judging an update, and the event that reports it. Knows no I/O."""

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
    """Result of judging one update."""

    verdict: Literal["accepted", "duplicate", "refused"]
    version: int
    """The server's version after the update was judged."""
    staleness: int = 0
    """Versions released between the update's base and its arrival."""
    reason: Refusal | None = None
    """Why the update was refused; None if it was not."""
    detail: str = ""
    """The value that was refused and what was expected, in words."""
    released: bool = False
    """Whether the update completed a step, so that `version` is new."""
    share: float = 1.0
    """Factor on the delta as it was counted: below 1 if its norm was over the vehicle's bound."""


def judged(
    update: Update, outcome: Outcome, *, num_bytes: int, row: int
) -> tuple[str, dict[str, Any]]:
    """Name and fields of the event that reports the outcome; `num_bytes` is the size of its frame."""
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
