"""Requests to a server by a signed row in its journal, which it counts in its turn like an update.

A request holds from that row on, in every replay too. A server that does not run at the moment follows it
when it is started.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

from fleetfl.events.event_log import EventReader
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Ban, Rollback
from fleetfl.protocol.signing import Signer
from fleetfl.registry.registry import Registry, RegistryError
from fleetfl.storage.journal import Journal, path_in


async def append(state: Path, request: Rollback | Ban) -> int:
    """Append a request; gives the number of the journal's row, which is on disk.

    Raises RegistryError for a folder that is not a server's; JournalError or IdentityError for one that
    cannot be used.
    """
    registry = Registry.of_server(state)
    record = next(e.record for e in reversed(registry.required()) if e.record is not None)
    journal, key = path_in(state), state / "key.pem"
    for path in (journal, key):
        if not path.is_file():
            raise RegistryError(f"{path} is missing: {state} is not the state folder of a server")
    signer = Signer.from_file(registry.config(record.config)["fleet"], key)
    with contextlib.closing(Journal(journal)) as kept:
        return (await kept.append(request, wire.encode(request, signer))).row


def answer(
    state: Path, row: int, *, done: str, refused: str, patience_s: float
) -> dict[str, Any] | None:
    """The event `done` by which a server answers that row; None if none comes within `patience_s`.

    Raises RegistryError if there is the event `refused` of it.
    """
    reader = EventReader(state / "events.jsonl", begin_with=2)
    deadline = time.monotonic() + patience_s
    while True:
        for event in reader.read():
            if event.get("row") == row and event["event"] == done:
                return event
            if event.get("row") == row and event["event"] == refused:
                raise RegistryError(f"the server refused: {event['detail']}")
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
