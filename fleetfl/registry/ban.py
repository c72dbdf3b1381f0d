"""Bans a vehicle, or lifts its ban, by a signed row in the server's journal (`requests.py`).

Taking its key file away bans nobody where keys are noted at the first use: the name is back with another key.
A ban holds for the name, whatever key it comes with.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path

from fleetfl.plain_files import content_of
from fleetfl.protocol.messages import MAX_NOTE, Ban
from fleetfl.registry import requests
from fleetfl.storage.atomic_write import write_whole

log = logging.getLogger(__name__)

DONE, LIFTED, REFUSED = "vehicle_banned", "ban_lifted", "ban_refused"
"""Names of the events that answer a request."""


async def ask(state: Path, name: str, *, reason: str = "", is_banned: bool = True) -> int:
    """Ask for a ban, or for its end; gives the number of the journal's row, which is on disk.

    Raises as `requests.append`, and UnsendableError for a name that no vehicle can have.
    """
    boot = secrets.token_urlsafe(8)
    return await requests.append(state, Ban(boot, name, is_banned, reason[:MAX_NOTE]))


def in_force(state: Path) -> dict[str, str]:
    """Reason for the ban of each banned vehicle, from the file that the server writes for people."""
    try:
        found = json.loads(content_of(listing(state)))
    except Exception:  # no ban was ever asked for; the server's memory is in its checkpoints
        return {}
    return found if isinstance(found, dict) else {}


def write_down(state: Path, banned: Mapping[str, str]) -> None:
    """Write the bans to a file for people; no server reads it back."""
    if not banned and not listing(state).exists():
        return
    try:
        write_whole(listing(state), json.dumps(dict(banned), indent=2).encode())
    except OSError as failed:
        log.error("%s is not written: %s", listing(state), failed)


def listing(state: Path) -> Path:
    """Path of the file of bans that the server writes for people."""
    return state / "bans.json"
