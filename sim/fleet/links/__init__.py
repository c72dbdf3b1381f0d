"""A vehicle's way to the broker: how long bytes take, and when nothing passes. They know no broker."""

import math
from typing import Annotated

from pydantic import Field, SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from
from sim.fleet.dice import normal, uniform


class LinkConfig(PluginConfig):
    """A link whose rate is drawn anew every `slot_s`, around a median. Kinds set the fields' defaults."""

    up_bits_per_s: float = Field(gt=0)
    """Median rate to the broker."""
    down_bits_per_s: float = Field(gt=0)
    latency_s: float = Field(ge=0)
    """One way."""
    sigma: float = Field(ge=0)
    """Of the log-normal rate."""
    dead_share: float = Field(ge=0, lt=1)
    """Share of slots in which nothing passes: a valley, a tunnel, the shadow of a hull."""
    slot_s: float = Field(default=60.0, gt=0)
    watts: float = Field(ge=0)
    """Of the radio while it sends or receives."""


AnyLink = Annotated[SerializeAsAny[LinkConfig], chosen_from("sim.fleet.links")]


class Link:
    """One vehicle's. Its trace follows from `seed` alone and is never stored."""

    __slots__ = ("config", "seed")

    def __init__(self, config: LinkConfig, seed: int) -> None:
        self.config, self.seed = config, seed

    def seconds(self, at_s: float, num_bytes: int, *, up: bool) -> float:
        """From the start of a transfer at `at_s` until its last bit has arrived."""
        config, left = self.config, 8.0 * num_bytes
        median = config.up_bits_per_s if up else config.down_bits_per_s
        now, slot = at_s, int(at_s // config.slot_s)
        while left > 0:
            end, rate = (slot + 1) * config.slot_s, self._rate(slot, median)
            if rate and left <= rate * (end - now):
                now += left / rate
                break
            left -= rate * (end - now)
            now, slot = end, slot + 1
        return now - at_s + config.latency_s

    def _rate(self, slot: int, median: float) -> float:
        """Bits a second; 0 in a dead slot."""
        config = self.config
        if config.dead_share and uniform(self.seed, slot, "dead") < config.dead_share:
            return 0.0
        if not config.sigma:
            return median
        return median * math.exp(config.sigma * normal(self.seed, slot))
