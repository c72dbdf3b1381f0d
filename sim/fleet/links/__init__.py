"""A vehicle's way to the broker: how long bytes take, and when nothing passes. They know no broker."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, SerializeAsAny

from fleetfl.plugins import PluginConfig, chosen_from
from sim.fleet.dice import normal, uniform


class LinkConfig(PluginConfig):
    """A link whose rate is drawn anew every `slot_s`, around a median. Kinds set the fields' defaults."""

    up_bits_per_s: float = Field(gt=0)
    """Median rate to the broker."""
    down_bits_per_s: float = Field(gt=0)
    """Median rate from the broker."""
    latency_s: float = Field(ge=0)
    """One way."""
    sigma: float = Field(ge=0)
    """Sigma of the log-normal rate."""
    dead_share: float = Field(ge=0, lt=1)
    """Share of slots in which nothing passes: a valley, a tunnel, the shadow of a hull."""
    slot_s: float = Field(default=60.0, gt=0)
    """Seconds for which a drawn rate holds."""
    out_from_hour: float = Field(default=math.inf, ge=0, allow_inf_nan=True)
    """Hour of virtual time (the first midnight is 0) from which nothing passes for `out_hours`."""
    out_hours: float = Field(default=0.0, ge=0)
    """Length of the outage that begins at `out_from_hour`."""
    repeated_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the vehicle's packets that come twice, as QoS 1 allows."""
    late_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the vehicle's packets that come up to `late_s` after those sent later."""
    late_s: float = Field(default=30.0, gt=0)
    """Longest delay of a packet that comes late."""
    watts: float = Field(ge=0)
    """Power that the radio draws while it sends or receives."""

    @property
    def idle(self) -> Mapping[str, str]:
        """Delays of packets that are never late, and outages that never begin or last no time."""
        found = {}
        if not self.repeated_share and not self.late_share:
            found["late_s"] = "no packet is late: set `late_share` or `repeated_share`"
        if self.out_from_hour == math.inf:
            found["out_hours"] = "no outage begins: set `out_from_hour`"
        elif not self.out_hours:
            found["out_from_hour"] = "the outage lasts no time: set `out_hours`"
        return found


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
        begin_s = 3600 * config.out_from_hour
        end_s = begin_s + 3600 * config.out_hours
        now = end_s if begin_s <= at_s < end_s else at_s
        slot = int(now // config.slot_s)
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

    def arrivals(self, nth: int) -> list[float]:
        """How long after it was sent the vehicle's nth packet is there, and there again."""
        config = self.config
        if not config.repeated_share and not config.late_share:
            return [0.0]
        is_late = uniform(self.seed, nth, "is late") < config.late_share
        first = config.late_s * uniform(self.seed, nth, "late") if is_late else 0.0
        if uniform(self.seed, nth, "is repeated") >= config.repeated_share:
            return [first]
        return [first, config.late_s * uniform(self.seed, nth, "repeated")]
