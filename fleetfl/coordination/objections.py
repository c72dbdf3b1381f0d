"""Reasons to refuse an update before it is counted: where it comes from and what its values are. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fleetfl import closed_form
from fleetfl.coordination.outcome import Refusal
from fleetfl.protocol.messages import Update
from fleetfl.releases.versions import Published, ReleaseError
from fleetfl.vectors import Layout

Objection = tuple[Refusal, str]
"""The reason to refuse an update, and in words the value found and what was expected."""


@dataclass(frozen=True)
class Origin:
    """The server's side of the question whether an update comes from a release that it may count."""

    layout: Layout
    published: Published
    floor: int
    """Oldest base version whose updates are still told apart from repeats."""
    max_staleness: int
    rolled_back: Sequence[tuple[int, int]]
    """First and last version that each rollback took back."""
    banned: Mapping[str, str]
    """Reason for the ban of each banned vehicle."""
    last_without_meaning: int
    """Newest version released by an older fleetfl, whose layouts tell shapes alone; -1 if there is none."""

    def objection(self, update: Update, staleness: int) -> Objection | None:
        """Why the update is of no use here, whatever its values are; None if it may be counted."""
        if update.vehicle in self.banned:
            return Refusal.BANNED, self.banned[update.vehicle] or "no reason was given"
        unlike = self.layout.objection(update.layout, update.parts, ours="the server's")
        if unlike and not self._is_of_an_older_version(update):
            return Refusal.LAYOUT, unlike
        base, published = update.base_version, self.published
        newest = published.last_of(update.generation or published.generation)
        if newest is None:
            detail = f"generation {update.generation}, expected {published.generation}"
            return Refusal.GENERATION, detail
        if base > newest:
            return Refusal.FUTURE, f"base version {base}, newest is {newest}"
        return self._outdated(update, staleness)

    def _outdated(self, update: Update, staleness: int) -> Objection | None:
        base = update.base_version
        if staleness > self.max_staleness:
            return Refusal.STALE, f"{staleness} versions late, limit {self.max_staleness}"
        if update.codec != closed_form.KIND and base < self.floor:
            return Refusal.STALE, f"base version {base}, none before {self.floor} is counted"
        if self.published.has_other_bits(base, update.base_sha256):
            return Refusal.BASE, f"base version {base} has other bits here"
        if any(first <= base <= last for first, last in self.rolled_back):
            return Refusal.ROLLED_BACK, f"base version {base} was rolled back"
        return None

    def _is_of_an_older_version(self, update: Update) -> bool:
        """Neither the update nor the release that it was trained from says what its values mean."""
        return (
            not update.parts
            and update.layout == self.layout.plain.fingerprint
            and update.base_version <= self.last_without_meaning
        )


def objection_to_values(delta: np.ndarray, norm: float, *, most: float) -> Objection | None:
    """Why `delta`, float32 [P] of this norm, cannot be an update: not finite, or longer than `most`."""
    if norm <= most:
        return None
    finite = np.isfinite(delta)
    if finite.all():
        return Refusal.SIZE, f"norm {norm:.3g}, expected at most {most:.3g}"
    at = int(np.argmin(finite))
    return Refusal.NOT_FINITE, f"value {at} of {delta.size} is {delta[at]}"


def require_sense(params: np.ndarray, norm: float, *, most: float, version: int) -> None:
    """Raises ReleaseError for a vector, float32 [P] of this norm, that no model of the fleet can have."""
    if norm <= most:
        return
    finite = np.isfinite(params)
    at = int(np.argmin(finite))
    found = f"norm {norm:.3g}" if finite.all() else f"{params[at]} as value {at}"
    raise ReleaseError(f"version {version}: {found}, expected a norm of at most {most:.3g}")
