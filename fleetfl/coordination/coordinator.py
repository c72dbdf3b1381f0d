"""The server's decisions without I/O: an update goes in, an outcome comes out.

`actors/aggregator.py` wraps one Coordinator in a Ray actor; tests and the simulator call it bare.
"""

from typing import Any

import msgspec
import numpy as np

from fleetfl import closed_form
from fleetfl.aggregators import Aggregator, Declined, Step
from fleetfl.codecs import CodecConfig, CodecError, decoder
from fleetfl.coordination.deduplication import Contribution, Ledger
from fleetfl.coordination.objections import Objection, Origin, objection_to_values, require_sense
from fleetfl.coordination.outcome import Outcome, Refusal
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.defences import influence
from fleetfl.defences.influence import Bounds, norm_of
from fleetfl.defences.pace import Pace, TooFarAheadError
from fleetfl.protocol.messages import Ban, Rollback, Update
from fleetfl.releases.versions import Published, ReleaseError, whole
from fleetfl.server_optimizers import ServerOptimizer
from fleetfl.vectors import Layout

STRIKES = 3
"""Number of different vehicles whose update may make a step fail before the buffered step is dropped."""
DEFAULT_CLIP = influence.Config()


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
        generation: str = "",
        max_staleness: int = 50,
        head: closed_form.Config | None = None,
        clip: influence.Config | None = DEFAULT_CLIP,
    ) -> None:
        """`clip` bounds the norm of a single update; None counts every finite norm that a model can have."""
        if params.shape != (layout.size,):
            raise ValueError(f"params of shape {params.shape}, layout says ({layout.size},)")
        self.params = params.astype(np.float32)
        self.layout, self.aggregator, self.optimizer = layout, aggregator, optimizer
        self.max_staleness = max_staleness
        self.published = Published(
            self.params, layout, release_codec, generation=generation, max_staleness=max_staleness
        )
        self.beginning = (aggregator.snapshot(), optimizer.snapshot())
        aggregator.released(self.published.vector)
        self.ledger = Ledger()
        self.bounds = Bounds(clip, self.params, turn=getattr(aggregator, "turn", 1))
        # Where the aggregator looks itself after who counts how often, nobody gets ahead.
        self.pace = Pace(clip.ahead if clip and self.bounds.turn else None)
        self.head = head and closed_form.ClosedFormHead(head, layout, self.params)
        """Collects sufficient statistics for the closed-form head; None refuses them."""
        self.rolled_back: list[tuple[int, int]] = []
        """First and last version that each rollback took back."""
        self.banned: dict[str, str] = {}
        """Reason for the ban of each banned vehicle; their updates are refused."""
        self.last_without_meaning = -1
        """Newest version released by an older fleetfl, whose layouts tell shapes alone; -1 if there is
        none."""
        self.in_head: dict[str, Contribution] = {}
        """Record of each vehicle's newest sufficient statistics, until the head is released."""
        self.pending: list[Contribution] = []
        """Updates counted since the newest release."""
        self.made_of: tuple[Contribution, ...] = ()
        """Updates that the newest release was made of; empty unless `submit` released it."""
        self.strikes: list[str] = []
        """Vehicles whose update made a step fail since the newest release."""

    @classmethod
    def from_settings(
        cls,
        settings: CoordinatorSettings,
        params: np.ndarray,
        layout: Layout,
        *,
        generation: str = "",
    ) -> "Coordinator":
        """A coordinator that obeys all of the settings; whoever has settings makes it here.

        `params`, float32 [P], is version 0. Raises ValueError if they do not fit the layout.
        """
        return cls(
            params,
            layout,
            settings.aggregator.build(layout.size),
            settings.optimizer.build(layout.size),
            release_codec=settings.release,
            generation=generation,
            max_staleness=settings.max_staleness,
            head=settings.closed_form,
            clip=settings.clip,
        )

    @property
    def version(self) -> int:
        """Version number of the newest release."""
        return self.published.version

    def submit(self, update: Update, *, at_s: float = 0.0) -> Outcome:
        """Judge one update, kept at `at_s` (UTC seconds), and, if it is sound and new, fold it in.

        Never raises for its content.
        """
        staleness = self.version - update.base_version
        if self.ledger.knows(update.vehicle, update.boot, update.sequence):
            return Outcome("duplicate", self.version, staleness)
        count = self._count_statistics if update.codec == closed_form.KIND else self._count_delta
        outcome = count(update, staleness, at_s)
        self.pace.reported(update.vehicle, at_s, is_accepted=outcome.verdict == "accepted")
        return outcome

    def _count_delta(self, update: Update, staleness: int, at_s: float) -> Outcome:
        misplaced = self._misplaced(update, staleness)
        if misplaced is not None:
            return self._refused(staleness, *misplaced)
        try:
            self.pace.require_place(update.vehicle, at_s)
        except TooFarAheadError as why:
            return self._refused(staleness, Refusal.DECLINED, str(why))
        found = self._delta(update, staleness)
        if isinstance(found, Outcome):
            return found
        outcome = self._fold(update, *found)
        if outcome.verdict == "accepted":
            self._note(update)
        return outcome

    def _fold(self, update: Update, delta: np.ndarray, norm: float) -> Outcome:
        """Give an update to the aggregator, and release the step if that completes one.

        If the step fails, everything is as it was before this update.
        """
        staleness = self.version - update.base_version
        believed = self.bounds.believed(update.vehicle, norm, update.num_examples)
        if believed.share < 1:
            delta = delta * np.float32(believed.share)
        before = self._state_before_a_step()
        try:
            step = self.aggregator.add(
                delta,
                vehicle=update.vehicle,
                num_examples=believed.num_examples,
                staleness=staleness,
            )
            if step is not None:
                self._release(step)
        except Declined as why:
            return self._refused(staleness, Refusal.DECLINED, str(why))
        except Exception as failed:
            return self._struck(update.vehicle, staleness, failed, before)
        self.bounds.counted(update.vehicle, believed)
        name = (update.vehicle, update.boot, update.sequence)
        self.pending.append(Contribution(*name, staleness, believed.num_examples))
        if step is None:
            return Outcome("accepted", self.version, staleness, share=believed.share)
        self.made_of, self.pending = tuple(self.pending), []
        return Outcome("accepted", self.version, staleness, share=believed.share, released=True)

    def _state_before_a_step(self) -> dict[str, Any] | None:
        """The aggregator's state if the next update may complete a step; else None."""
        goal = getattr(self.aggregator, "goal", 1)
        return self.aggregator.snapshot() if self.aggregator.buffered + 1 >= goal else None

    def _struck(
        self, vehicle: str, staleness: int, failed: Exception, before: dict[str, Any] | None
    ) -> Outcome:
        """Refuse the update that made a step fail; the other buffered updates wait for the next one.

        After STRIKES vehicles the buffer itself is taken to be unfit and dropped.
        """
        kind = "" if isinstance(failed, ReleaseError) else f"{type(failed).__name__}: "
        detail = f"{kind}{failed}"
        if before is not None:
            self.aggregator.restore(before)
        if vehicle not in self.strikes:
            self.strikes.append(vehicle)
        if len(self.strikes) >= STRIKES:
            detail += f"; {len(self.pending)} updates of this step are dropped: it fails with each"
            self._begin_again()
        return self._refused(staleness, Refusal.STEP, detail)

    def _begin_again(self) -> None:
        """Put aggregator and optimizer back into their initial state and drop all buffered updates."""
        aggregator, optimizer = self.beginning
        self.aggregator.restore(aggregator)
        self.optimizer.restore(optimizer)
        self.aggregator.released(self.published.vector)
        self.pending, self.strikes = [], []

    def _count_statistics(self, update: Update, staleness: int, at_s: float) -> Outcome:
        """Count sufficient statistics; the closed-form head is released once, before a step changes the
        features.
        """
        # Sufficient statistics do not age: their body names the features that they are of.
        misplaced = self._misplaced(update, min(staleness, 0))
        if misplaced is not None:
            return self._refused(staleness, *misplaced)
        head = self.head
        if head is None:
            detail = "no sufficient statistics are taken here: server.closed_form is not set"
            return self._refused(staleness, Refusal.DECLINED, detail)
        is_older = update.layout == self.layout.plain.fingerprint
        try:
            self.pace.require_place(update.vehicle, at_s)
            solved = head.count(
                update.vehicle,
                head.renamed(update.body) if is_older else update.body,
                update.num_examples,
                captured_to=update.captured_to,
                params=self.params,
            )
        except (closed_form.OlderStatistics, closed_form.OtherFeatures, TooFarAheadError) as why:
            return self._refused(staleness, Refusal.DECLINED, str(why))
        except CodecError as unfit:
            return self._refused(staleness, Refusal.BODY, str(unfit))
        if not head.is_released:  # else nothing was taken that could be taken twice
            self._note(update)
            name = (update.vehicle, update.boot, update.sequence)
            self.in_head[update.vehicle] = Contribution(*name, staleness, update.num_examples)
        if solved is None:
            return Outcome("accepted", self.version, staleness)
        self.params = solved
        head.release()
        self.made_of, self.in_head = tuple(self.in_head.values()), {}
        self.published.replace(self.params)
        self.aggregator.released(self.params)
        self._released()
        return Outcome("accepted", self.version, staleness, released=True)

    def roll_back(self, rollback: Rollback) -> Outcome:
        """Release the bits of an older version again as the next version.

        Everything learned since is dropped: buffered updates, the optimizer's state, and updates that
        are still to come from the versions taken back.
        """
        before = self.version
        if rollback.layout != self.layout.plain.fingerprint:  # as in releases of an older version
            unlike = self.layout.objection(rollback.layout, b"", ours="the server's")
            if unlike:
                return self._refused(0, Refusal.LAYOUT, unlike)
        try:
            vector = whole(rollback, self.layout)
            self._require_sense(vector)
        except ReleaseError as unfit:
            return self._refused(0, Refusal.BODY, str(unfit))
        is_ours = rollback.generation == self.published.generation
        self.rolled_back.append((rollback.version + 1 if is_ours else 0, before))
        self.rolled_back = [
            each for each in self.rolled_back if before - each[1] <= self.max_staleness
        ]
        self.params, self.made_of = vector, ()
        self.published.replace(vector)
        self._begin_again()
        self._released()
        return Outcome("accepted", self.version, self.version - rollback.version, released=True)

    def ban(self, ban: Ban) -> Outcome:
        """Refuse a vehicle's updates from here on, or accept them again.

        A ban takes out the vehicle's sufficient statistics and what the aggregator keeps of it. Its part
        of the buffer, a share of one update at most, is in a sum of floats already and stays.
        """
        self.banned.pop(ban.name, None)
        if ban.is_banned:
            self.banned[ban.name] = ban.reason
            self.bounds.forget(ban.name)
            self.in_head.pop(ban.name, None)
            getattr(self.aggregator, "forget", lambda vehicle: None)(ban.name)
            if self.head is not None:
                self.head.forget(ban.name)
        return Outcome("accepted", self.version)

    def _release(self, step: Step) -> None:
        """Apply and publish the step. Raises ReleaseError, with params, optimizer and version as before."""
        before = self.optimizer.snapshot()
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                params = self.optimizer.apply(self.params, step)
            self._require_sense(params)
            self.published.advance(params)
        except Exception:
            self.optimizer.restore(before)
            raise
        self.params = params
        self.aggregator.released(self.published.vector)
        self.strikes = []
        self._released()

    def _released(self) -> None:
        self.ledger.forget_before(self.version - self.max_staleness)

    def _require_sense(self, params: np.ndarray) -> None:
        norm = norm_of(params)
        require_sense(params, norm, most=self.bounds.most, version=self.version + 1)

    def _note(self, update: Update) -> None:
        self.ledger.add(update.vehicle, update.boot, update.sequence, update.base_version)

    def _refused(self, staleness: int, reason: Refusal, detail: str) -> Outcome:
        return Outcome("refused", self.version, staleness, reason, detail)

    def _delta(self, update: Update, staleness: int) -> tuple[np.ndarray, float] | Outcome:
        """The update's decoded delta, float32 [P], and its norm; or the outcome that refuses it."""
        try:
            delta = decoder(update.codec, self.layout).decode(update.body)
        except CodecError as broken:
            return self._refused(staleness, Refusal.BODY, str(broken))
        norm = norm_of(delta)
        senseless = objection_to_values(delta, norm, most=self.bounds.most)
        return self._refused(staleness, *senseless) if senseless else (delta, norm)

    def _misplaced(self, update: Update, staleness: int) -> Objection | None:
        origin = Origin(
            self.layout,
            self.published,
            self.ledger.floor,
            self.max_staleness,
            self.rolled_back,
            self.banned,
            self.last_without_meaning,
        )
        return origin.objection(update, staleness)

    def snapshot(self) -> dict[str, Any]:
        """State that `restore` needs to go on, bit for bit, as if never stopped."""
        in_head = self.in_head.values()
        return {
            "params": self.params.copy(),
            "published": self.published.snapshot(),
            "ledger": self.ledger.snapshot(),
            "aggregator": self.aggregator.snapshot(),
            "optimizer": self.optimizer.snapshot(),
            "undone": self.rolled_back,  # its name on disk since the first version
            "banned": dict(self.banned),
            "bounds": self.bounds.snapshot(),
            "pace": self.pace.snapshot(),
            "strikes": [*self.strikes],
            "last_without_meaning": self.last_without_meaning,
            "pending": [msgspec.structs.astuple(each) for each in self.pending],
            "in_head": [msgspec.structs.astuple(each) for each in in_head],
            "head": None if self.head is None else self.head.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of `snapshot`; one of an older release may lack bounds, pace and bans."""
        self.params = state["params"].copy()
        self.published.restore(state["published"])
        self.ledger.restore(state["ledger"], version=self.version)
        self.aggregator.restore(state["aggregator"])
        self.optimizer.restore(state["optimizer"])
        self.rolled_back = [(first, last) for first, last in state["undone"]]
        self.banned = dict(state.get("banned", {}))
        if "bounds" in state:
            self.bounds.restore(state["bounds"])
        if "pace" in state:
            self.pace.restore(state["pace"])
        self.strikes = list(state.get("strikes", ()))
        self.last_without_meaning = state.get("last_without_meaning", -1)
        self.pending = [Contribution(*each) for each in state["pending"]]
        self.in_head = {each[0]: Contribution(*each) for each in state["in_head"]}
        if self.head is not None and state["head"] is not None:
            self.head.restore(state["head"])
