"""Counts packets that are no message of a vehicle, so that they fill no disk. Knows no clock."""

from collections import Counter

from fleetfl.defences.rate_limits import TokenBucket

LINES, LINE_EVERY_S = 20, 10.0
MOST_SENDERS = 1_000
OTHERS = ""
"""Counts whoever came after so many senders."""


class MalformedPackets:
    """All of them are counted; the first few, and then one now and then, are worth a line."""

    def __init__(self) -> None:
        self.total = 0
        self.by_sender: Counter[str] = Counter()
        """Since the last line."""
        self.lines = TokenBucket(1 / LINE_EVERY_S, LINES)

    def count(self, sender: str, now_s: float) -> dict[str, object] | None:
        """One more; what a line has to say of those since the last one, or None if it is not worth one."""
        self.total += 1
        known = sender in self.by_sender or len(self.by_sender) < MOST_SENDERS
        self.by_sender[sender if known else OTHERS] += 1
        if not self.lines.takes(now_s):
            return None
        worst, _ = self.by_sender.most_common(1)[0]
        said = {"packets": self.by_sender.total(), "worst": worst}
        self.by_sender.clear()
        return said
