"""Token buckets that limit how fast one vehicle, and all of them, may send. Knows no clock and no broker."""

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import Field

from fleetfl.config import Section

MOST_VEHICLES = 50_000
"""Number of buckets kept; beyond it the longest silent vehicle's is dropped, and starts full again."""
CHUNK_COST = 1 / 8
"""Cost of a chunk, as a share of a frame's: the largest update of the shipped models is three 64 KiB
chunks."""


class Config(Section):
    """Rates that a gateway accepts; an honest fleet stays far below them."""

    updates_per_s: float = Field(default=100.0, gt=0)
    """Average frames a second (updates and statuses) of one vehicle. Frames above it are acknowledged and not
    read, and the vehicle sends an update again, later and later."""
    burst: int = Field(default=2_000, ge=1)
    """Frames of one vehicle accepted at once, as after a long time without a link: an outbox has 1,000 at
    most. A larger burst lets one vehicle occupy the gateway longer."""
    total_updates_per_s: float = Field(default=10_000.0, gt=0)
    """Average frames a second of all vehicles of one partition. Beyond it the gateway reads more slowly and
    frames wait in the broker."""


@dataclass
class TokenBucket:
    """Bucket that fills by `rate_per_s` up to `burst`; each frame takes a token. `now_s` never goes back."""

    rate_per_s: float
    burst: float
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst
        """Tokens left, in frames; a bucket begins full, whatever the time is."""

    def takes(self, now_s: float, cost: float = 1.0) -> bool:
        """Take `cost` tokens out if there are as many; says whether there were."""
        self._fill(now_s)
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

    def owe(self, now_s: float, cost: float = 1.0) -> float:
        """Take `cost` tokens out in any case; gives the seconds until the bucket is no longer overdrawn."""
        self._fill(now_s)
        self.tokens -= cost
        return max(0.0, -self.tokens / self.rate_per_s)

    def _fill(self, now_s: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) * self.rate_per_s)
        self.at_s = now_s


class Limits:
    """Token buckets of one gateway: one for each vehicle, and one for all of them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.all = TokenBucket(config.total_updates_per_s, config.total_updates_per_s)
        self.vehicles: OrderedDict[str, TokenBucket] = OrderedDict()
        """Bucket of each vehicle; the one heard of last is last."""
        self.num_passed_over = 0
        """Number of packets that were not read because their vehicle sends too many."""

    def wait_s(self, now_s: float) -> float:
        """Seconds to wait before the next packet is read."""
        return self.all.owe(now_s)

    def takes(self, vehicle: str, now_s: float, *, is_chunk: bool) -> bool:
        """Whether this packet of `vehicle` is to be read."""
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
