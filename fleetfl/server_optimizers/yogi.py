"""Yogi on the aggregated deltas (FedYogi, arXiv:2003.00295, algorithm 2): Adam whose v falls slowly.

    v <- v - (1 - b2) change^2 sign(v - change^2)

By hand, b1 = b2 = 1/2, t = 1, a change of 4: v = 1 + 16/2 = 9, m = 2, x moves by eta_g 2 / (3 + 1).
"""

from typing import Literal

import numpy as np

from fleetfl.server_optimizers.adam import Adam
from fleetfl.server_optimizers.adam import Config as AdamConfig


class Config(AdamConfig):
    """Settings of Yogi, those of Adam."""

    kind: Literal["yogi"] = "yogi"  # pyright: ignore[reportIncompatibleVariableOverride]

    def build(self, size: int) -> "Yogi":
        return Yogi(self, size)


class Yogi(Adam):
    """Adam whose mean of squares v falls slowly; the formula is the module's."""

    def _square_after(self, squared: np.ndarray) -> np.ndarray:
        return self.square - (1 - self.config.beta2) * squared * np.sign(self.square - squared)
