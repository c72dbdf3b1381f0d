"""Full weight up to a limit, then 1 / (1 + a (s - b)) (FedAsync, arXiv:1903.03934, section 5.2).

The paper writes 1 / (a (s - b) + 1) for s > b: the same thing.
"""

from typing import Literal

from pydantic import Field

from fleetfl.staleness import StalenessRule


class Config(StalenessRule):
    kind: Literal["hinge"] = "hinge"
    slope: float = Field(default=10.0, gt=0)
    """a: how fast the weight falls past the limit, per version."""
    limit: int = Field(default=4, ge=0)
    """b, in versions: up to here an update counts in full."""

    def weight(self, staleness: int) -> float:
        late = staleness - self.limit
        return 1.0 if late <= 0 else 1.0 / (1.0 + self.slope * late)
