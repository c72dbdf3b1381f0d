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
    """What a server optimizer makes the next version of."""

    change: np.ndarray
    """float32 [P]: where the updates want the model to go. Nobody writes to it afterwards."""
    staleness: tuple[int, ...]
    """Of each update that came since the last step, in the order of arrival."""


class Aggregator(Protocol):
    """Explicit state in, state out; deltas are float32 [P]. Implementations name it as their base."""

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
        """Updates folded in since the last step: none, where every arrival makes one."""
        return 0

    @property
    def goal(self) -> int:
        """Updates that make a step; 1 where every arrival may make one."""
        return 1

    @property
    def turn(self) -> int:
        """Updates of which no vehicle gives more than its share (`fleetfl/defences/influence.py`).

        0 where the aggregator looks itself after who counts how often.
        """
        return self.goal

    def forget(self, vehicle: str) -> None:
        """Drop what is kept of this vehicle past the next step. Few keep anything."""
        return

    def released(self, vector: np.ndarray) -> None:
        """Told of each version as everyone has it, float32 [P], version 0 included. Few need it."""
        return

    def snapshot(self) -> dict[str, Any]:
        """State that `restore` needs to go on as if never stopped."""
        ...

    def restore(self, state: dict[str, Any]) -> None: ...


class AggregatorConfig(PluginConfig):
    """Settings of one aggregator."""

    def build(self, size: int) -> Aggregator:
        """Make the aggregator for vectors of `size` values."""
        raise NotImplementedError


AnyAggregator = Annotated[SerializeAsAny[AggregatorConfig], chosen_from("fleetfl.aggregators")]
