"""No link at all: what is sent has arrived. To look at training alone."""

from typing import Literal

from sim.fleet.links import LinkConfig


class Config(LinkConfig):
    kind: Literal["instant"] = "instant"
    up_bits_per_s: float = 1e15
    down_bits_per_s: float = 1e15
    latency_s: float = 0.0
    sigma: float = 0.0
    dead_share: float = 0.0
    slot_s: float = 1e9
    watts: float = 0.0
