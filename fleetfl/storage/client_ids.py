"""What a broker knows a connection by. It has one connection an id, and ends an older one of the same.

    depot-7:v:drone-01          a vehicle of the fleet
    depot-7:s:0:5f2c9a81d03e    the server's gateway of partition 0
    depot-7:t:5f2c9a81d03e      a connection that only looks whether the broker answers

No name of a fleet or a vehicle holds a colon, so no two of these are the same for any names; and clouds that
know devices by their client id (thing names of AWS IoT) allow colons.
"""

import secrets
from pathlib import Path

from fleetfl.plain_files import content_of
from fleetfl.storage.atomic_write import write_durably

MOST_FOR_ALL = 23
"""Characters that a broker of MQTT 3.1 allows. One of 3.1.1 has to allow as many, and those that are in use
allow at least 128."""

FILE = "gateway-id"


def vehicle(fleet: str, name: str) -> str:
    return f"{fleet}:v:{name}"


def gateway(fleet: str, partition: int, server: str) -> str:
    """`server` tells it from another server's, which a fleet of the same name may have."""
    return f"{fleet}:s:{partition}:{server}"


def passing(fleet: str) -> str:
    """An id that nobody else has, for a connection of a moment."""
    return f"{fleet}:t:{secrets.token_hex(6)}"


def server_of(state: Path) -> str:
    """What tells this server's ids from others'; drawn once, and then kept in its state folder.

    The broker keeps the gateways' sessions by it while the server is down. Raises OSError.
    """
    path = state / FILE
    try:
        kept = content_of(path, max_bytes=4096).decode(errors="replace").strip()
    except FileNotFoundError:
        kept = ""
    if not (kept.isascii() and kept.isalnum() and len(kept) <= 32):
        kept = secrets.token_hex(6)
        write_durably(path, kept.encode() + b"\n")
    return kept


def vehicle_before(fleet: str, name: str) -> str:
    """The id that earlier code had, whose session at the broker nobody comes back to."""
    return f"{fleet}-{name}"


def gateway_before(fleet: str, partition: int) -> str:
    """The same of a gateway."""
    return f"{fleet}-gateway-{partition}"
