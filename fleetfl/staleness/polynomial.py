"""(1 + s)^-a, the discount of FedAsync and FedBuff (arXiv:1903.03934, arXiv:2106.06639)."""

from typing import Literal

from pydantic import Field

from fleetfl.staleness import StalenessRule


class Config(StalenessRule):
    kind: Literal["polynomial"] = "polynomial"
    exponent: float = Field(default=0.5, ge=0)
    """a; FedBuff's paper uses 1/2."""

    def weight(self, staleness: int) -> float:
        return (1.0 + staleness) ** -self.exponent
