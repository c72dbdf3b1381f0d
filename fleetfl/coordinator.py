"""The server's judgement, with no I/O: an update goes in, an outcome comes out.

`actors/aggregator.py` wraps one Coordinator in a Ray actor; tests and the simulator call it bare.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import msgspec
import numpy as np

from fleetfl import closed_form
from fleetfl.aggregators import Aggregator, Declined, Step
from fleetfl.codecs import CodecConfig, CodecError, decoder
from fleetfl.ledger import Contribution, Ledger
from fleetfl.messages import UNDONE, Rollback, Update
from fleetfl.releases import Published, ReleaseError, whole
from fleetfl.server_optimizers import ServerOptimizer
from fleetfl.vectors import Layout


class Refusal(str, Enum):
    """Why an update was not counted."""

    LAYOUT = "layout"  # another adapter than ours
    LINEAGE = "lineage"  # based on another server's versions, or those from before a new beginning
    FUTURE = "future"  # based on a version that was never released
    STALE = "stale"  # older than max_staleness versions
    UNDONE = UNDONE  # trained from a version that was rolled back
    BODY = "body"  # not what its codec packs
    NOT_FINITE = "not_finite"
    DECLINED = "declined"  # the aggregator has no use for it: its round has ended, for instance
    STEP = "step"  # the step that it completed has no finite result; all of that step is dropped
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
    return outcome.verdict, {**seen, "loss": update.loss, "num_examples": update.num_examples}


class Coordinator:
    """Owner of version and params (float32 [P]); every change to them goes through `submit`.

    `params` is what the server optimizes, `published.vector` what everyone has and trains from.
    """

    def __init__(
        self,
        params: np.ndarray,
        layout: Layout,
        aggregator: Aggregator,
        optimizer: ServerOptimizer,
        *,
        release_codec: CodecConfig,
        lineage: str = "",
        max_staleness: int = 50,
        head: closed_form.Config | None = None,
    ) -> None:
        if params.shape != (layout.size,):
            raise ValueError(f"params of shape {params.shape}, layout says ({layout.size},)")
        self.params = params.astype(np.float32)
        self.layout, self.aggregator, self.optimizer = layout, aggregator, optimizer
        self.max_staleness = max_staleness
        self.published = Published(
            self.params, layout, release_codec, lineage=lineage, max_staleness=max_staleness
        )
        self.beginning = (aggregator.snapshot(), optimizer.snapshot())
        aggregator.released(self.published.vector)
        self.ledger = Ledger()
        self.head = head and closed_form.ClosedFormHead(head, layout, self.params)
        """Takes the sums; None refuses them."""
        self.undone: list[tuple[int, int]] = []
        """First and last of the versions that each rollback undid."""
        self.in_head: list[Contribution] = []
        """Sums that came before the head was released."""
        self.pending: list[Contribution] = []
        """Counted since the newest release."""
        self.made_of: tuple[Contribution, ...] = ()
        """What the newest release was made of, if it was released by `submit`."""

    @property
    def version(self) -> int:
        """The newest release."""
        return self.published.version

    def submit(self, update: Update) -> Outcome:
        """Judge one update and, if it is sound and new, fold it in. Never raises for its content."""
        staleness = self.version - update.base_version
        if self.ledger.knows(update.vehicle, update.boot, update.sequence):
            return Outcome("duplicate", self.version, staleness)
        if update.codec == closed_form.KIND:
            return self._count_sums(update, staleness)
        return self._count_delta(update, staleness)

    def _count_delta(self, update: Update, staleness: int) -> Outcome:
        delta = self._delta(update, staleness)
        if isinstance(delta, Outcome):
            return delta
        try:
            step = self.aggregator.add(
                delta,
                vehicle=update.vehicle,
                num_examples=update.num_examples,
                staleness=staleness,
            )
        except Declined as why:
            return Outcome("refused", self.version, staleness, Refusal.DECLINED, str(why))
        name = (update.vehicle, update.boot, update.sequence)
        self.ledger.add(*name)
        self.pending.append(Contribution(*name, staleness, update.num_examples))
        if step is None:
            return Outcome("accepted", self.version, staleness)
        self.made_of, self.pending = tuple(self.pending), []
        try:
            self._release(step)
        except ReleaseError as unfit:
            return Outcome("refused", self.version, staleness, Refusal.STEP, str(unfit))
        return Outcome("accepted", self.version, staleness, released=True)

    def _count_sums(self, update: Update, staleness: int) -> Outcome:
        """Sums for the closed-form head; it is released once, before any step has changed the features."""

        def refused(reason: Refusal, detail: str) -> Outcome:
            return Outcome("refused", self.version, staleness, reason, detail)

        # Sums do not age: what they are sums of is in the body.
        misplaced = self._misplaced(update, min(staleness, 0))
        if misplaced is not None:
            return refused(*misplaced)
        if self.head is None:
            return refused(
                Refusal.DECLINED, "no sums are taken here: server.closed_form is not set"
            )
        try:
            self.head.put(update.vehicle, update.body, update.num_examples)
        except CodecError as unfit:
            return refused(Refusal.BODY, str(unfit))
        name = (update.vehicle, update.boot, update.sequence)
        self.ledger.add(*name)
        self.in_head.append(Contribution(*name, staleness, update.num_examples))
        if not self.head.is_due or not self.head.fits(self.params):
            return Outcome("accepted", self.version, staleness)
        self.params, self.head.is_released = self.head.solved(self.params), True
        self.made_of, self.in_head = tuple(self.in_head), []
        self.published.replace(self.params)
        self.aggregator.released(self.params)
        return Outcome("accepted", self.version, staleness, released=True)

    def roll_back(self, rollback: Rollback) -> Outcome:
        """Make the next version with the bits of an older one. All that was learned since is dropped:

        what is buffered, the optimizer's state, and what is still to come from the versions undone.
        """
        before = self.version
        if rollback.layout != self.layout.fingerprint:
            found, expected = rollback.layout.hex(), self.layout.fingerprint.hex()
            detail = f"layout {found}, expected {expected}"
            return Outcome("refused", before, 0, Refusal.LAYOUT, detail)
        try:
            vector = whole(rollback, self.layout)
        except ReleaseError as unfit:
            return Outcome("refused", before, 0, Refusal.BODY, str(unfit))
        is_ours = rollback.lineage == self.published.lineage
        self.undone.append((rollback.version + 1 if is_ours else 0, before))
        self.undone = [each for each in self.undone if before - each[1] <= self.max_staleness]
        self.params, self.pending, self.made_of = vector, [], ()
        self.published.replace(vector)
        aggregator, optimizer = self.beginning
        self.aggregator.restore(aggregator)
        self.optimizer.restore(optimizer)
        self.aggregator.released(vector)
        return Outcome("accepted", self.version, self.version - rollback.version, released=True)

    def _release(self, step: Step) -> None:
        """Raises ReleaseError, with params, optimizer and version as they were."""
        before = self.optimizer.snapshot()
        with np.errstate(over="ignore", invalid="ignore"):
            params = self.optimizer.apply(self.params, step)
        try:
            self.published.advance(params)
        except ReleaseError:
            self.optimizer.restore(before)
            raise
        self.params = params
        self.aggregator.released(self.published.vector)

    def _delta(self, update: Update, staleness: int) -> np.ndarray | Outcome:
        def refused(reason: Refusal, detail: str) -> Outcome:
            return Outcome("refused", self.version, staleness, reason, detail)

        misplaced = self._misplaced(update, staleness)
        if misplaced is not None:
            return refused(*misplaced)
        try:
            delta = decoder(update.codec, self.layout).decode(update.body)
        except CodecError as broken:
            return refused(Refusal.BODY, str(broken))
        finite = np.isfinite(delta)
        if not finite.all():
            at = int(np.argmin(finite))
            return refused(Refusal.NOT_FINITE, f"value {at} of {delta.size} is {delta[at]}")
        return delta

    def _misplaced(self, update: Update, staleness: int) -> tuple[Refusal, str] | None:
        """Why a difference to its base is of no use here, whatever its values are."""
        base = update.base_version
        if update.layout != self.layout.fingerprint:
            expected = self.layout.fingerprint.hex()
            return Refusal.LAYOUT, f"layout {update.layout.hex()}, expected {expected}"
        if update.lineage and not self.published.knows(update.lineage):
            return Refusal.LINEAGE, f"lineage {update.lineage}, expected {self.published.lineage}"
        if staleness < 0:
            return Refusal.FUTURE, f"base version {base}, newest is {self.version}"
        if staleness > self.max_staleness:
            return Refusal.STALE, f"{staleness} versions late, limit {self.max_staleness}"
        if any(first <= base <= last for first, last in self.undone):
            return Refusal.UNDONE, f"base version {base} was rolled back"
        return None

    def snapshot(self) -> dict[str, Any]:
        """State that `restore` needs to go on, bit for bit, as if never stopped."""
        return {
            "params": self.params.copy(),
            "published": self.published.snapshot(),
            "ledger": self.ledger.snapshot(),
            "aggregator": self.aggregator.snapshot(),
            "optimizer": self.optimizer.snapshot(),
            "undone": self.undone,
            "pending": [msgspec.structs.astuple(each) for each in self.pending],
            "in_head": [msgspec.structs.astuple(each) for each in self.in_head],
            "head": None if self.head is None else self.head.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.params = state["params"].copy()
        self.published.restore(state["published"])
        self.ledger.restore(state["ledger"])
        self.aggregator.restore(state["aggregator"])
        self.optimizer.restore(state["optimizer"])
        self.undone = [(first, last) for first, last in state["undone"]]
        self.pending = [Contribution(*each) for each in state["pending"]]
        self.in_head = [Contribution(*each) for each in state["in_head"]]
        if self.head is not None and state["head"] is not None:
            self.head.restore(state["head"])
