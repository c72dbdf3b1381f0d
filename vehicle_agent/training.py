"""What one training came to. Knows no torch, so an agent can be there without."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LocalTraining:
    delta: np.ndarray
    """What training changed, float32 [P]."""
    num_examples: int
    local_steps: int
    loss: float
    """Mean over the steps."""
    class_counts: list[float] | None = None
    """What the trainer has to be given back after a restart; None if it remembers nothing."""


@dataclass(frozen=True)
class Summed:
    """Sums over frames, for the closed-form head."""

    body: bytes
    """As fleetfl/closed_form.py packs them."""
    num_examples: int
    loss: float
    """Of the head as it is."""
