"""Aggregators fold vehicles' updates into one server step. They never see a clock, a socket or a model."""

from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl import FleetflError
from fleetfl.plugins import PluginConfig, chosen_from


class Declined(FleetflError, ValueError):
    """An update that the aggregator has no use for, such as one of a round that has ended; says why."""


@dataclass(frozen=True)
class Step:
    """One server step, from which a server optimizer makes the next version."""

    change: np.ndarray
    """float32 [P]: where the updates want the model to go. Nobody writes to it afterwards."""
    staleness: tuple[int, ...]
    """Staleness, in versions, of each update that came since the last step, in the order of arrival."""


class Aggregator(Protocol):
    """Folds deltas, float32 [P], into steps; explicit state in, state out. Implementations derive from it."""

    def add(
        self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int
    ) -> Step | None:
        """Fold in one update; give the step when one is due, else None.

        `delta` may be read-only. It may be kept for as long as wanted, so nobody may change it afterwards.
        Raises Declined, with everything as it was, for an update that is not to be counted.
        """
        ...

    @property
    def buffered(self) -> int:
        """Number of updates folded in since the last step; 0 where every arrival makes a step."""
        return 0

    @property
    def goal(self) -> int:
        """Number of updates that make a step; 1 where every arrival may make one."""
        return 1

    @property
    def turn(self) -> int:
        """Number of updates that vehicles share, each giving its part (`fleetfl/defences/influence.py`).

        0 where the aggregator itself limits how often a vehicle counts.
        """
        return self.goal

    def forget(self, vehicle: str) -> None:
        """Drop whatever is kept of this vehicle past the next step; few aggregators keep anything."""
        return

    def released(self, vector: np.ndarray) -> None:
        """Take note of a release, float32 [P] with the bits that vehicles have; version 0 is the first
        call.
        """
        return

    def snapshot(self) -> dict[str, Any]:
        """State that `restore` needs to go on as if never stopped."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of `snapshot`."""
        ...


class AggregatorConfig(PluginConfig):
    """Settings of one aggregator."""

    def build(self, size: int) -> Aggregator:
        """Make the aggregator for vectors of `size` values."""
        raise NotImplementedError


AnyAggregator = Annotated[SerializeAsAny[AggregatorConfig], chosen_from("fleetfl.aggregators")]
