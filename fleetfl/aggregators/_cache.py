"""Each vehicle's last delta, in bounded memory, and the sum of all of them in O(P) an update.

The sum is float64 and follows each change, so it costs no more with a thousand vehicles than with ten; in
float64 what that leaves behind stays far below a float32 value's last bit.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
from pydantic import Field

from fleetfl.aggregators import Declined
from fleetfl.codecs import AnyCodec, CodecError
from fleetfl.config import Section
from fleetfl.vectors import Layout


class CacheConfig(Section):
    """Settings of the cache of vehicles' last deltas."""

    max_vehicles: int = Field(default=1000, ge=1)
    """Number of vehicles whose last delta is kept, those heard of last. A thousand deltas of 38,794 values
    take 155 MB, in memory and in each checkpoint."""
    codec: AnyCodec | None = None
    """Codec that packs a cached delta: None keeps float32, `{kind: bfloat16}` takes about half the memory and
    `{kind: int8}` a quarter. The decoded value is both added and subtracted, so errors do not add up."""


Packed = np.ndarray | bytes
"""A cached delta: float32 [P], or bytes of the codec."""


class DeltaCache:
    """The last delta of each vehicle, in bounded memory, and the sum of all of them."""

    def __init__(self, config: CacheConfig, size: int) -> None:
        self.max_vehicles = config.max_vehicles
        self.codec = None if config.codec is None else config.codec.build(Layout.flat(size))
        self.size = size
        self.entries: OrderedDict[str, Packed] = OrderedDict()
        """Cached delta of each vehicle; the one heard of last is last."""
        self.total = np.zeros(size, np.float64)

    def get(self, vehicle: str) -> np.ndarray | None:
        """The vehicle's cached delta, float32 [P]; None if there is none."""
        entry = self.entries.get(vehicle)
        return None if entry is None else self._unpacked(entry)

    def mean(self) -> np.ndarray:
        """Mean of all cached deltas, float64 [P]; zeros if there are none."""
        return self.total / max(1, len(self.entries))

    def packed(self, delta: np.ndarray) -> Packed:
        """The delta, float32 [P], in the form that `put` takes. Raises Declined if the codec cannot hold
        it.
        """
        if self.codec is None:
            return delta
        try:
            return self.codec.encode(delta)
        except CodecError as unfit:
            raise Declined(f"cannot be kept: {unfit}") from unfit

    def put(self, vehicle: str, entry: Packed) -> list[str]:
        """Replace the vehicle's delta; gives the vehicles that were dropped to make room."""
        self.drop(vehicle)
        self.entries[vehicle] = entry
        self.total += self._unpacked(entry)
        gone = list(self.entries)[: max(0, len(self.entries) - self.max_vehicles)]
        for old in gone:
            self.drop(old)
        return gone

    def drop(self, vehicle: str) -> None:
        """Take the vehicle's delta out of cache and sum."""
        entry = self.entries.pop(vehicle, None)
        if entry is not None:
            self.total -= self._unpacked(entry)

    def _unpacked(self, entry: Packed) -> np.ndarray:
        if isinstance(entry, np.ndarray):
            return entry
        assert self.codec is not None
        return self.codec.decode(entry)

    def snapshot(self) -> dict[str, Any]:
        # No copies of entries: nobody writes to a delta.
        return {"entries": [[*entry] for entry in self.entries.items()], "total": self.total.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self.entries = OrderedDict((vehicle, entry) for vehicle, entry in state["entries"])
        self.total = state["total"].copy()
