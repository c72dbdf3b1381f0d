"""Synchronous FedAvg: a round ends with its `goal`-th update, the mean over examples (arXiv:1602.05629).

    x <- x + eta_g sum_i n_i delta_i / sum_i n_i

A version is a round. What was trained from an earlier version comes too late, and a vehicle counts once a
round; both are declined. Over-selection (1902.01046) is that more vehicles than `goal` are at work: who
starts is not an aggregator's business, so a round here is never abandoned, it waits for its goal.

Two vehicles by hand, goal 2: 1 example says 6, 3 examples say 2; (1 * 6 + 3 * 2) / 4 = 3.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Declined, Step
from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.staleness.constant import Config as Constant


class Config(AggregatorConfig):
    """Settings of synchronous FedAvg."""

    kind: Literal["fedavg"] = "fedavg"
    goal: int = Field(default=10, ge=1)
    """Number of updates that end a round. A larger goal waits for slower vehicles."""
    weigh_examples: bool = True
    """Whether an update is weighed by its number of examples (the paper) or all alike."""

    def build(self, size: int) -> "FedAvg":
        return FedAvg(self, size)


class FedAvg(Aggregator):
    """FedBuff's buffer that takes only updates of the current round, one from each vehicle."""

    def __init__(self, config: Config, size: int) -> None:
        self.buffer = FedBuff(
            goal=config.goal,
            staleness=Constant(),
            normalize="weights",
            weigh_examples=config.weigh_examples,
        ).build(size)
        self.reported: set[str] = set()
        """Vehicles that have reported in this round."""

    @property
    def goal(self) -> int:
        return self.buffer.goal

    @property
    def turn(self) -> int:
        return 0

    @property
    def buffered(self) -> int:
        return self.buffer.buffered

    def add(
        self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int
    ) -> Step | None:
        if staleness > 0:
            raise Declined(f"its round ended {staleness} versions ago")
        if vehicle in self.reported:
            raise Declined(f"{vehicle} has reported in this round before")
        step = self.buffer.add(
            delta, vehicle=vehicle, num_examples=num_examples, staleness=staleness
        )
        self.reported = set() if step else self.reported | {vehicle}
        return step

    def snapshot(self) -> dict[str, Any]:
        return {**self.buffer.snapshot(), "reported": sorted(self.reported)}

    def restore(self, state: dict[str, Any]) -> None:
        self.buffer.restore(state)
        self.reported = set(state["reported"])
