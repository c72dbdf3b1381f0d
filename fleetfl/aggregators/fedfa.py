"""FedFa: the mean of the last `window` updates, a step at every arrival (IJCAI 2024, arXiv:2404.11015).

    x <- x + eta_g (1/K) sum of the K newest deltas

This is the paper's form for deltas: an update takes part in K steps, so its whole effect is eta_g times
itself and the server's rate is to be about 1/K of FedBuff's to go as far. Until K updates came the mean is
over those there are.

By hand, K = 2: deltas 2, 4, 8 give steps 2, (2 + 4) / 2 = 3, (4 + 8) / 2 = 6.
"""

from collections import deque
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Step
from fleetfl.aggregators._fit import require_fit
from fleetfl.aggregators._weighted_sum import weighted_sum


class Config(AggregatorConfig):
    """Settings of FedFa."""

    kind: Literal["fedfa"] = "fedfa"
    window: int = Field(default=10, ge=1)
    """Number of newest updates in the mean, float32 [P] each (K in the paper). A larger window gives steadier
    steps in which old updates count longer."""

    def build(self, size: int) -> "FedFa":
        return FedFa(self, size)


class FedFa(Aggregator):
    """A queue of the newest deltas; each arrival makes a step of their mean."""

    def __init__(self, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.newest: deque[np.ndarray] = deque(maxlen=config.window)

    @property
    def turn(self) -> int:
        return self.config.window

    def add(self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int) -> Step:
        require_fit(delta, self.size)
        self.newest.append(delta)
        count = len(self.newest)
        return Step(weighted_sum(list(self.newest), [1.0] * count, divisor=count), (staleness,))

    def snapshot(self) -> dict[str, Any]:
        return {"newest": list(self.newest)}

    def restore(self, state: dict[str, Any]) -> None:
        self.newest = deque(state["newest"], self.config.window)
