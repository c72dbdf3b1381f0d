"""Asks a server to go back to an older release, by a signed row in its journal.

The row has the bits themselves, so that a replay needs nothing but the journal.
"""

import secrets
from pathlib import Path
from typing import Any

from fleetfl.codecs import decoder
from fleetfl.protocol.messages import MAX_NOTE, Rollback
from fleetfl.registry import requests
from fleetfl.registry.registry import Registry, RegistryError
from fleetfl.registry.release_file import read_release


async def ask(state: Path, name: str, *, reason: str = "") -> int:
    """Ask for a rollback; gives the number of the journal's row, which is on disk.

    Raises RegistryError or ReleaseFileError for a release that is not there, is damaged, or is the newest;
    JournalError or IdentityError for a state folder that cannot be used.
    """
    registry = Registry.of_server(state)
    record, layout, vector = read_release(registry.find(name).path)
    newest = registry.required()[-1].record
    if newest is not None and newest.sha256 == record.sha256:
        raise RegistryError(f"{record.name} is what is released already, as {newest.name}")
    rollback = Rollback(
        boot=secrets.token_urlsafe(8),
        generation=record.generation,
        version=record.version,
        layout=layout.fingerprint,
        sha256=bytes.fromhex(record.sha256),
        codec="float32",
        body=decoder("float32", layout).encode(vector),
        reason=reason[:MAX_NOTE],
    )
    return await requests.append(state, rollback)


def answer(state: Path, row: int, *, patience_s: float) -> dict[str, Any] | None:
    """The event by which a server answers that row; None if none comes within `patience_s`.

    Raises RegistryError if it refused.
    """
    return requests.answer(
        state, row, done="rolled_back", refused="rollback_refused", patience_s=patience_s
    )
