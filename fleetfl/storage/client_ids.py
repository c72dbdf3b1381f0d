"""Client ids, by which a broker knows a connection; it ends an older connection with the same id.

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
"""Most characters of an id that every broker allows (MQTT 3.1). Brokers of 3.1.1 have to allow as many, and
those in use allow at least 128."""

FILE = "gateway-id"


def vehicle(fleet: str, name: str) -> str:
    """Client id of a vehicle."""
    return f"{fleet}:v:{name}"


def gateway(fleet: str, partition: int, server: str) -> str:
    """Client id of a gateway; `server` tells it from one of another server with the same fleet name."""
    return f"{fleet}:s:{partition}:{server}"


def passing(fleet: str) -> str:
    """Unique client id for a short connection."""
    return f"{fleet}:t:{secrets.token_hex(6)}"


def server_of(state: Path) -> str:
    """Random part of this server's client ids, drawn once and kept in its state folder.

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
    """Client id of a vehicle in earlier code, whose session at the broker is to be dropped."""
    return f"{fleet}-{name}"


def gateway_before(fleet: str, partition: int) -> str:
    """Client id of a gateway in earlier code, whose session at the broker is to be dropped."""
    return f"{fleet}-gateway-{partition}"
