"""A narrow satellite terminal, such as Iridium Certus 100 (88 kbit/s down, 22 up, its maker's figures).

Assumptions: 0.7 s one way through the constellation's gateways; every twentieth minute the sky is hidden.
"""

from typing import Literal

from sim.fleet.links import LinkConfig


class Config(LinkConfig):
    kind: Literal["satellite"] = "satellite"
    up_bits_per_s: float = 22e3
    down_bits_per_s: float = 88e3
    latency_s: float = 0.7
    sigma: float = 0.2
    dead_share: float = 0.05
    watts: float = 6.0
