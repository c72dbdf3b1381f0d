"""Counts packets that are no message of a vehicle, so that they do not fill the log. Knows no clock."""

from collections import Counter

from fleetfl.defences.rate_limits import TokenBucket

LINES, LINE_EVERY_S = 20, 10.0
MOST_SENDERS = 1_000
OTHERS = ""
"""Name under which senders beyond MOST_SENDERS are counted together."""


class MalformedPackets:
    """Counts every malformed packet; the first LINES, then one every LINE_EVERY_S, are worth a log line."""

    def __init__(self) -> None:
        self.total = 0
        self.by_sender: Counter[str] = Counter()
        """Number of packets of each sender since the last log line."""
        self.lines = TokenBucket(1 / LINE_EVERY_S, LINES)

    def count(self, sender: str, now_s: float) -> dict[str, object] | None:
        """Count a packet; gives the fields of a log line about all since the last line, or None if none is
        due.
        """
        self.total += 1
        known = sender in self.by_sender or len(self.by_sender) < MOST_SENDERS
        self.by_sender[sender if known else OTHERS] += 1
        if not self.lines.takes(now_s):
            return None
        worst, _ = self.by_sender.most_common(1)[0]
        said = {"packets": self.by_sender.total(), "worst": worst}
        self.by_sender.clear()
        return said
