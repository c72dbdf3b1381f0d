"""Values as a message takes them: what sensors, trainers and clocks give is brought into its range."""

import math
from collections.abc import Mapping

from fleetfl.protocol.messages import MAX_ENDS, fitting

MOST = 2**53
LATEST_S = 2**40
LARGEST = 3.4028234663852886e38
"""Of float32."""
OTHERS = "other"


def second(moment: float) -> int:
    """UTC, whole seconds from 1970 on; a clock that says nonsense has the nearest of these, or 0."""
    return 0 if math.isnan(moment) else int(min(max(moment, 0), LATEST_S))


def positive(count: int) -> int:
    """From 1 to 2**53."""
    return min(max(int(count), 1), MOST)


def number(value: float) -> float:
    """Finite as float32; a loss that is not a number was as large as can be."""
    return LARGEST if math.isnan(value) else min(max(float(value), -LARGEST), LARGEST)


def counts(outcomes: Mapping[str, int]) -> dict[str, int]:
    """The most frequent kinds of end, as many as a status takes; the others together."""
    short: dict[str, int] = {}
    for name, number in outcomes.items():
        key = fitting(name, MAX_ENDS)
        short[key] = min(short.get(key, 0) + max(number, 0), MOST)
    if len(short) <= MAX_ENDS:
        return short
    often = sorted(short, key=lambda key: (-short[key], key))[: MAX_ENDS - 1]
    kept = {key: short[key] for key in short if key in often and key != OTHERS}
    return {**kept, OTHERS: min(sum(short.values()) - sum(kept.values()), MOST)}
