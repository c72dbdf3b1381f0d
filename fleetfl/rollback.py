"""Ask a server to go back to an older release: a signed row in its journal, which it counts like an update.

The row has the bits themselves, so that a replay needs nothing but the journal.
"""

import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

from fleetfl import wire
from fleetfl.codecs import decoder
from fleetfl.identity import Signer
from fleetfl.journal import Journal, path_in
from fleetfl.messages import MAX_NOTE, Rollback
from fleetfl.registry import Registry, RegistryError
from fleetfl.release_file import read_release
from fleetfl.telemetry import EventReader


async def ask(state: Path, name: str, *, reason: str = "") -> int:
    """The row of the journal that asks for it, on disk.

    Raises RegistryError or ReleaseFileError for a release that is not there, is damaged, or is the newest;
    JournalError or IdentityError for a state folder that cannot be used.
    """
    registry = Registry.of_server(state)
    record, layout, vector = read_release(registry.find(name).path)
    newest = registry.required()[-1].record
    if newest is not None and newest.sha256 == record.sha256:
        raise RegistryError(f"{record.name} is what is released already, as {newest.name}")
    journal, key = path_in(state), state / "key.pem"
    for path in (journal, key):
        if not path.is_file():
            raise RegistryError(f"{path} is missing: {state} is not the state folder of a server")
    signer = Signer.from_file(registry.config(record.config)["fleet"], key)
    rollback = Rollback(
        boot=secrets.token_urlsafe(8),
        lineage=record.lineage,
        version=record.version,
        layout=layout.fingerprint,
        sha256=bytes.fromhex(record.sha256),
        codec="float32",
        body=decoder("float32", layout).encode(vector),
        reason=reason[:MAX_NOTE],
    )
    with contextlib.closing(Journal(journal)) as kept:
        return (await kept.append(rollback, wire.encode(rollback, signer))).row


def answer(state: Path, row: int, *, patience_s: float) -> dict[str, Any] | None:
    """The event that tells what a server did with that row; None if none has in that time.

    Raises RegistryError if it refused.
    """
    reader, deadline = EventReader(state / "events.jsonl"), time.monotonic() + patience_s
    while True:
        for event in reader.read():
            if event.get("row") == row and event["event"] == "rolled_back":
                return event
            if event.get("row") == row and event["event"] == "rollback_refused":
                raise RegistryError(f"the server refused: {event['detail']}")
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
