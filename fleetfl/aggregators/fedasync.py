"""FedAsync: each update is a model that is mixed in, the less the staler it is (arXiv:1903.03934).

    x <- (1 - a) x + a y,   y = base + delta,   a = alpha s(tau)

`base` is the version that the vehicle trained from, so a stale model also pulls x back towards it; adding
a * delta to the newest x, as many do, is something else. x is what was published: where releases lose
bits, what is still to be released is left alone.

By hand, alpha 1/2, no discount: version 0 is 0 and version 1 is 4. A vehicle that trained from version 0 to 2
has y = 2: x = 4 / 2 + 2 / 2 = 3, a step of -1, though its delta is +2.
"""

from collections import deque
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Aggregator, AggregatorConfig, Declined, Step
from fleetfl.aggregators._fit import require_fit
from fleetfl.staleness import AnyStalenessRule
from fleetfl.staleness.polynomial import Config as Polynomial


class Config(AggregatorConfig):
    """Settings of FedAsync."""

    kind: Literal["fedasync"] = "fedasync"
    mixing: float = Field(default=0.6, gt=0, le=1)
    """Share of a fresh model that is mixed in (alpha in the paper). A larger share learns faster and forgets
    other vehicles' models sooner."""
    staleness: AnyStalenessRule = Polynomial()
    """Rule for the weight of a late model (s in the paper)."""
    history: int = Field(default=51, ge=1)
    """Number of versions kept, float32 [P] each; an update based on an older one is declined. One more than
    `max_staleness` declines none."""

    def build(self, size: int) -> "FedAsync":
        return FedAsync(self, size)


class FedAsync(Aggregator):
    """Mixes each arriving model in; every arrival is a step, so nothing is ever buffered."""

    def __init__(self, config: Config, size: int) -> None:
        self.config, self.size = config, size
        self.versions: deque[np.ndarray] = deque(maxlen=config.history)
        """Released vectors, float32 [P], the newest last."""

    def add(self, delta: np.ndarray, *, vehicle: str, num_examples: int, staleness: int) -> Step:
        require_fit(delta, self.size)
        if staleness >= len(self.versions):
            raise Declined(
                f"its base is {staleness} versions old, {len(self.versions)} versions are kept"
            )
        share = np.float32(self.config.mixing * self.config.staleness.weight(staleness))
        change = delta - (self.versions[-1] - self.versions[-1 - staleness])
        return Step(np.multiply(share, change, out=change), (staleness,))

    def released(self, vector: np.ndarray) -> None:
        self.versions.append(vector)

    def snapshot(self) -> dict[str, Any]:
        # No copies: published vectors are never written to.
        return {"versions": list(self.versions)}

    def restore(self, state: dict[str, Any]) -> None:
        self.versions = deque(state["versions"], self.config.history)
