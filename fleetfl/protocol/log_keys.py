"""The keys by which a line of a log names an update, the same at the vehicle and at the server.

`grep 'vehicle=v3 boot=8fKx3w seq=17 '` finds all that either side logged of it.
"""

import json
import re
from typing import Protocol

from fleetfl.protocol.messages import Update

UNKNOWN_BASE = -1
MAX_CHARACTERS = 64
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+\Z")


class Named(Protocol):
    """Update, receipt, or what the beginning of a frame says that it is."""

    @property
    def vehicle(self) -> str: ...
    @property
    def boot(self) -> str: ...
    @property
    def sequence(self) -> int: ...


def log_keys(named: Named, base: int | None = None) -> str:
    """`vehicle=v3 boot=8fKx3w seq=17 base=41`; the base is an Update's own unless given, and -1 if not known.

    What is no plain word is quoted and cut: whoever sends an update chooses these.
    """
    if base is None:
        base = named.base_version if isinstance(named, Update) else UNKNOWN_BASE
    vehicle, boot = _word(named.vehicle), _word(named.boot)
    return f"vehicle={vehicle} boot={boot} seq={named.sequence} base={base}"


def _word(said: str) -> str:
    cut = said[:MAX_CHARACTERS]
    return cut if _PLAIN.match(cut) else json.dumps(cut)
