"""Aggregators fold vehicles' updates into one server step. They never see a clock, a socket or a model."""

from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from


class Aggregator(Protocol):
    """Explicit state in, state out; deltas are float32 [P]."""

    def add(self, delta: np.ndarray, *, num_examples: int, staleness: int) -> np.ndarray | None:
        """Fold in one update; give the mean step, float32 [P], when one is due, else None.

        `delta` may be read-only. It may be kept until the step, so nobody may change it afterwards.
        """
        ...

    @property
    def buffered(self) -> int:
        """Updates folded in since the last step."""
        ...

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
