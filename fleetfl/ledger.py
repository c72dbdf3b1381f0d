"""Which updates were counted already. A broker may deliver one twice, an outbox may resend it."""

from typing import Any

import msgspec

WINDOW = 256
"""Sequence numbers remembered below the highest one of a (vehicle, boot)."""


class Contribution(msgspec.Struct, frozen=True):
    """An update that was counted, in the record of the release that it went into."""

    vehicle: str
    boot: str
    sequence: int
    staleness: int
    num_examples: int


class Ledger:
    """Remembers (vehicle, boot, sequence) in bounded memory; what lies below its window counts as seen."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], set[int]] = {}

    def knows(self, vehicle: str, boot: str, sequence: int) -> bool:
        numbers = self.seen.get((vehicle, boot))
        return numbers is not None and (sequence in numbers or sequence <= max(numbers) - WINDOW)

    def add(self, vehicle: str, boot: str, sequence: int) -> None:
        numbers = self.seen.setdefault((vehicle, boot), set())
        numbers.add(sequence)
        if len(numbers) > 2 * WINDOW:
            floor = max(numbers) - WINDOW
            self.seen[vehicle, boot] = {n for n in numbers if n > floor}

    def snapshot(self) -> dict[str, Any]:
        return {"seen": [[*key, sorted(numbers)] for key, numbers in self.seen.items()]}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = {(vehicle, boot): set(numbers) for vehicle, boot, numbers in state["seen"]}
