"""(1 + s)^-a, the discount of FedAsync and FedBuff (arXiv:1903.03934, arXiv:2106.06639)."""

from typing import Literal

from pydantic import Field

from fleetfl.staleness import StalenessRule


class Config(StalenessRule):
    """Rule whose weight is a power of the staleness plus 1."""

    kind: Literal["polynomial"] = "polynomial"
    exponent: float = Field(default=0.5, ge=0)
    """Exponent a of the discount; FedBuff's paper uses 1/2. Larger values discount late updates more."""

    def weight(self, staleness: int) -> float:
        return (1.0 + staleness) ** -self.exponent
