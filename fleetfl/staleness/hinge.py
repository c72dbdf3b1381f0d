"""Full weight up to a limit, then 1 / (1 + a (s - b)) (FedAsync, arXiv:1903.03934, section 5.2).

The paper writes 1 / (a (s - b) + 1) for s > b: the same thing.
"""

from typing import Literal

from pydantic import Field

from fleetfl.staleness import StalenessRule


class Config(StalenessRule):
    """Rule with full weight up to a limit and a hyperbola beyond it."""

    kind: Literal["hinge"] = "hinge"
    slope: float = Field(default=10.0, gt=0)
    """Decline of the weight for each version past the limit (a in the paper); larger discounts faster."""
    limit: int = Field(default=4, ge=0)
    """Largest staleness, in versions, at which an update counts in full (b in the paper)."""

    def weight(self, staleness: int) -> float:
        late = staleness - self.limit
        return 1.0 if late <= 0 else 1.0 / (1.0 + self.slope * late)
