"""A mobile network from the air or the road: fast, uneven, with dead zones.

Assumptions: 4 Mbit/s up and 15 Mbit/s down in the middle, a factor of two between good and bad minutes.
"""

from typing import Literal

from sim.fleet.links import LinkConfig


class Config(LinkConfig):
    kind: Literal["lte"] = "lte"
    up_bits_per_s: float = 4e6
    down_bits_per_s: float = 15e6
    latency_s: float = 0.05
    sigma: float = 0.7
    dead_share: float = 0.05
    watts: float = 2.5
