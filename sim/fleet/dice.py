"""Chance without state: the same numbers always throw the same, whenever and in whatever order."""

import math
from zlib import crc32

_MASK = 2**64 - 1


def seed_of(*parts: int | str) -> int:
    """One seed of 64 bits from numbers and names (splitmix64 over them, in order)."""
    state = 0
    for part in parts:
        number = crc32(part.encode()) if isinstance(part, str) else part
        state = (state + 0x9E3779B97F4A7C15 + (number & _MASK)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def uniform(*parts: int | str) -> float:
    """In [0, 1)."""
    return (seed_of(*parts) >> 11) / 2**53


def normal(*parts: int | str) -> float:
    """Standard normal (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(*parts, "radius")))
    return radius * math.cos(2.0 * math.pi * uniform(*parts, "angle"))


def exponential(mean: float, *parts: int | str) -> float:
    return -mean * math.log(1.0 - uniform(*parts))
