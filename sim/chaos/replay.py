"""Replay of a run's journal without faults: its releases must match the run's to the bit."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from actors.config import ServerConfig
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.protocol import wire
from fleetfl.protocol.messages import Update
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.storage.journal import Journal
from sim.chaos.ledger import Name

ALL = 10**9
"""Row limit that is larger than any journal."""


@dataclass(frozen=True)
class Replay:
    """Result of a replay."""

    counted: set[Name]
    """Updates that the replay accepted."""
    digests: set[tuple[int, str]]
    """Releases of the replay: (version, SHA-256 in hexadecimal)."""


def replay(config: ServerConfig, events: list[dict[str, Any]]) -> Replay:
    """Aggregate the journal of `config` again in one pass.

    The server's `events` only give the names of the generations, and the row after which each began. Raises
    JournalError.
    """
    begun: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["event"] == "generation_began":
            begun.setdefault(event["counted_row"], []).append(event)
    coordinator = coordinator_of(config, generation=_first_generation(events, begun))
    counted: set[Name] = set()
    digests = {(0, coordinator.published.sha256.hex())}
    with closing(Journal(config.journal_path)) as journal:
        _rename(coordinator, begun.get(0, ()))
        for kept in journal.rows(0, ALL):
            update = wire.open_frame(kept.frame).message
            assert isinstance(update, Update), "nobody rolls back in a chaos run"
            outcome = coordinator.submit(update, at_s=kept.kept_at)
            if outcome.verdict == "accepted":
                counted.add((update.vehicle, update.boot, update.sequence))
            if outcome.released:
                digests.add((outcome.version, coordinator.published.sha256.hex()))
            _rename(coordinator, begun.get(kept.row, ()))
    return Replay(counted, digests)


def _first_generation(events: list[dict[str, Any]], begun: dict[int, list[dict[str, Any]]]) -> str:
    """The generation that the server began with, as far as the events tell; empty if they do not."""
    if begun:
        return begun[min(begun)][0]["was"].split("/")[0]
    started = [e["generation"] for e in events if e["event"] == "aggregator_started"]
    return started[0] if started else ""


def coordinator_of(config: ServerConfig, *, generation: str) -> Coordinator:
    """The server's coordinator at version 0. Raises AdapterFileError."""
    assert config.initial is not None
    layout, params = read_adapter(config.initial)
    return Coordinator.from_settings(config, params, layout, generation=generation)


def _rename(coordinator: Coordinator, generations: Iterable[dict[str, Any]]) -> None:
    for began in generations:
        coordinator.published.rename(began["generation"])
