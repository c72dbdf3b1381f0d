"""Names of generations, and which of two versions is the later one. Knows no server and no vehicle.

A server counts versions from 0 up in one *generation*. It begins another where it cannot vouch that a version
which it makes has the bits that went out under that number before, as after a restore from a backup. The name
is `{number}-{hex}`: numbers only grow, and the hexadecimal digits tell two servers apart that drew the same
number. Messages and files call the name `generation`.
"""

import re
import secrets
from collections.abc import Iterable
from typing import Protocol

from fleetfl import FleetflError

PATTERN = re.compile(r"([1-9][0-9]{0,14})-[0-9A-Za-z]{1,32}")

Order = tuple[int, int]
"""Number of the generation, and version in it: the larger one is the later one."""

BEFORE_ALL: Order = (-1, -1)
LAST_NUMBER = 10**15 - 1
"""Largest number of a generation; names with more digits have no number."""
LAST_VERSION = 2**53
"""Largest version of a generation."""


class GenerationError(FleetflError, ValueError):
    """No higher number is left for a new generation."""


class Versioned(Protocol):
    """Anything with a generation and a version: a release, a snapshot, or a version that is held."""

    @property
    def generation(self) -> str: ...
    @property
    def version(self) -> int: ...


def number_of(generation: str) -> int:
    """The generation's number; 0 for a name without one, as servers before this numbering drew them."""
    found = PATTERN.fullmatch(generation)
    return int(found[1]) if found else 0


def order_of(news: Versioned) -> Order:
    """Place of the version among all of its fleet, to be compared with others."""
    return number_of(news.generation), news.version


def successor(known: Iterable[str] = (), *, past: int = 0) -> str:
    """A new name whose number is higher than `past` and those of all `known` names.

    Raises GenerationError if one of them is the last.
    """
    number = 1 + max([past, *map(number_of, known)])
    if number > LAST_NUMBER:
        raise GenerationError(
            f"generation {number - 1} is known, and nothing stands behind number {LAST_NUMBER}: if nobody "
            "has it, remove what says so (a folder in the registry, the file `generation`)"
        )
    return f"{number}-{secrets.token_hex(3)}"
