"""Remembers which updates were counted, because a broker may deliver one twice and an outbox resends.

Names are remembered for as long as their update could be counted again. An update whose base version is older
than `max_staleness` allows is refused by that, so a (vehicle, boot) that counted nothing newer is forgotten.
`floor` is the least base version that is still remembered: it never falls, whatever the settings of a later
start are, and whatever lies below it is to be refused.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import msgspec

WINDOW = 256
"""Sequence numbers remembered below the highest one of a (vehicle, boot)."""
MASK = (1 << WINDOW) - 1

Key = tuple[str, str]
"""Key of the ledger's entries: vehicle and boot."""


class Contribution(msgspec.Struct, frozen=True):
    """An update that was counted, in the record of the release that it went into."""

    vehicle: str
    boot: str
    sequence: int
    staleness: int
    num_examples: int


@dataclass
class _Entry:
    top: int
    """Highest sequence number that was counted."""
    seen: int
    """Bit i is set if `top - i` was counted, for i below WINDOW."""
    base: int
    """Newest version that a counted update was trained from."""


class Ledger:
    """Remembers (vehicle, boot, sequence); what lies below its window counts as seen. Every call is O(1)."""

    def __init__(self) -> None:
        self.floor = 0
        self.entries: dict[Key, _Entry] = {}
        self.by_base: defaultdict[int, list[Key]] = defaultdict(list)
        """Keys that may be forgotten once the floor is past the version they stand under."""

    def knows(self, vehicle: str, boot: str, sequence: int) -> bool:
        """Whether this update was counted, or is so old that it has to be taken for counted."""
        entry = self.entries.get((vehicle, boot))
        if entry is None or sequence > entry.top:
            return False
        below = entry.top - sequence
        return below >= WINDOW or bool(entry.seen >> below & 1)

    def add(self, vehicle: str, boot: str, sequence: int, base: int) -> None:
        """Remember an update that was trained from version `base`."""
        key = (vehicle, boot)
        entry = self.entries.get(key)
        if entry is None:
            self._put(key, _Entry(sequence, 1, base))
            return
        above = sequence - entry.top
        if above > 0:
            # Shifts are as long as a vehicle's number wants them to be, unless they are cut.
            entry.seen = ((entry.seen << above) | 1) & MASK if above < WINDOW else 1
            entry.top = sequence
        elif -above < WINDOW:
            entry.seen |= 1 << -above
        if base > entry.base:
            entry.base = base
            self.by_base[base].append(key)

    def forget_before(self, floor: int) -> None:
        """Forget who counted nothing that was trained from version `floor` or a newer one."""
        for base in range(self.floor, floor):
            for key in self.by_base.pop(base, ()):
                entry = self.entries.get(key)
                if entry is not None and entry.base < floor:
                    del self.entries[key]
        self.floor = max(self.floor, floor)

    def _put(self, key: Key, entry: _Entry) -> None:
        self.entries[key] = entry
        self.by_base[entry.base].append(key)

    def snapshot(self) -> dict[str, Any]:
        entries = [
            (*key, entry.top, entry.seen.to_bytes(WINDOW // 8, "big"), entry.base)
            for key, entry in self.entries.items()
        ]
        return {"floor": self.floor, "entries": entries}

    def restore(self, state: dict[str, Any], *, version: int) -> None:
        """Go on from a state of `snapshot`.

        `version`, the newest one of the state, stands for base versions that older checkpoints do not have.
        """
        self.floor, self.entries = state.get("floor", 0), {}
        self.by_base = defaultdict(list)
        for vehicle, boot, top, seen, base in state.get("entries", ()):
            self._put((vehicle, boot), _Entry(top, int.from_bytes(seen, "big"), base))
        for vehicle, boot, numbers in state.get("seen", ()):
            top = max(numbers)
            bits = sum(1 << top - number for number in numbers if top - number < WINDOW)
            self._put((vehicle, boot), _Entry(top, bits, version))
