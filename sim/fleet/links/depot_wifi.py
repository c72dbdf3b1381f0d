"""Wi-Fi in the depot: fast and steady."""

from typing import Literal

from sim.fleet.links import LinkConfig


class Config(LinkConfig):
    kind: Literal["depot_wifi"] = "depot_wifi"
    up_bits_per_s: float = 40e6
    down_bits_per_s: float = 80e6
    latency_s: float = 0.005
    sigma: float = 0.2
    dead_share: float = 0.0
    watts: float = 1.5
