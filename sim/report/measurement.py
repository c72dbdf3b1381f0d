"""How good the served model was at one time, by held-out frames."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One pass over all held-out frames."""

    version: int
    """The release that answered last."""
    accuracy: float
    by_condition: dict[str, float]
