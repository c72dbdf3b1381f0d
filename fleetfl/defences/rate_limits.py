"""How much a vehicle, and all of them, may send in a time: token buckets. Knows no clock and no broker."""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import Field

from fleetfl.config import Section

MOST_VEHICLES = 50_000
"""Buckets kept at a time; a vehicle that was silent longest begins with a full one again."""
CHUNK_COST = 1 / 8
"""Of a frame's: 64 KiB chunks of the largest update of the shipped models are three."""


class Config(Section):
    """What a gateway takes in a time. An honest fleet does not meet these: its vehicles train in between."""

    updates_per_s: float = Field(default=100.0, gt=0)
    """Frames (updates and statuses) of one vehicle, averaged. What is above is acknowledged and not read:
    the vehicle sends an update again, later and later."""
    burst: int = Field(default=2_000, ge=1)
    """Frames of one vehicle at once, as after a long time without a link: its outbox has 1,000 at most."""
    total_updates_per_s: float = Field(default=10_000.0, gt=0)
    """Frames of all vehicles of one partition. Beyond, it reads later: they wait in the broker."""


@dataclass
class TokenBucket:
    """Fills by `rate_per_s` up to `burst`; each frame takes a token out. `now_s` never goes back."""

    rate_per_s: float
    burst: float
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst
        """It begins full, so that it does not matter when."""

    def takes(self, now_s: float, cost: float = 1.0) -> bool:
        """There was enough in it, and that much was taken out."""
        self._fill(now_s)
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

    def owe(self, now_s: float, cost: float = 1.0) -> float:
        """Take it out in any case; gives the seconds until it is no longer overdrawn."""
        self._fill(now_s)
        self.tokens -= cost
        return max(0.0, -self.tokens / self.rate_per_s)

    def _fill(self, now_s: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) * self.rate_per_s)
        self.at_s = now_s


class Limits:
    """The buckets of one gateway's vehicles, and that of all of them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.all = TokenBucket(config.total_updates_per_s, config.total_updates_per_s)
        self.vehicles: OrderedDict[str, TokenBucket] = OrderedDict()
        """The one heard of last is last."""
        self.num_passed_over = 0
        """Packets that were not read because their vehicle sends too many."""

    def wait_s(self, now_s: float) -> float:
        """How long to wait before the next packet is read."""
        return self.all.owe(now_s)

    def takes(self, vehicle: str, now_s: float, *, is_chunk: bool) -> bool:
        """Whether this packet is to be read."""
        bucket = self.vehicles.get(vehicle)
        if bucket is None:
            config = self.config
            bucket = TokenBucket(config.updates_per_s, config.burst)
            self.vehicles[vehicle] = bucket
            if len(self.vehicles) > MOST_VEHICLES:
                self.vehicles.popitem(last=False)
        self.vehicles.move_to_end(vehicle)
        is_taken = bucket.takes(now_s, CHUNK_COST if is_chunk else 1.0)
        self.num_passed_over += not is_taken
        return is_taken
