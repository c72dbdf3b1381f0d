"""Late updates count in full."""

from typing import Literal

from fleetfl.staleness import StalenessRule


class Config(StalenessRule):
    """Rule that weighs every update 1."""

    kind: Literal["constant"] = "constant"

    def weight(self, staleness: int) -> float:
        return 1.0
