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
    """Anything that names an update: an update, a receipt, or the beginning of a frame."""

    @property
    def vehicle(self) -> str: ...
    @property
    def boot(self) -> str: ...
    @property
    def sequence(self) -> int: ...


def log_keys(named: Named, base: int | None = None) -> str:
    """The keys, such as `vehicle=v3 boot=8fKx3w seq=17 base=41`; an unknown base is -1.

    The base is an Update's own unless given. Anything but a plain word is quoted and cut, since the sender
    of an update chooses it.
    """
    if base is None:
        base = named.base_version if isinstance(named, Update) else UNKNOWN_BASE
    vehicle, boot = _word(named.vehicle), _word(named.boot)
    return f"vehicle={vehicle} boot={boot} seq={named.sequence} base={base}"


def _word(said: str) -> str:
    cut = said[:MAX_CHARACTERS]
    return cut if _PLAIN.match(cut) else json.dumps(cut)
