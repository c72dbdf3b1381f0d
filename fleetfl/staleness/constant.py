"""Late updates count in full."""

from typing import Literal

from fleetfl.staleness import StalenessRule


class Config(StalenessRule):
    kind: Literal["constant"] = "constant"

    def weight(self, staleness: int) -> float:
        return 1.0
