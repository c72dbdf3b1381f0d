"""The journal of a run counted once more without any fault: what has to be in the model, to the bit."""

from contextlib import closing
from dataclasses import dataclass

from actors.config import ServerConfig
from fleetfl import wire
from fleetfl.adapter_file import read_adapter
from fleetfl.coordinator import Coordinator
from fleetfl.journal import Journal
from fleetfl.messages import Update
from sim.chaos.ledger import Name

ALL = 10**9


@dataclass(frozen=True)
class Replay:
    counted: set[Name]
    digests: set[tuple[int, str]]
    """Each release's version and SHA-256, hexadecimal."""


def replay(config: ServerConfig, lineage: str) -> Replay:
    """In one go, as if nothing had ever died. `lineage` is the one that updates name. Raises JournalError."""
    assert config.initial is not None
    layout, params = read_adapter(config.initial)
    coordinator = Coordinator(
        params,
        layout,
        config.aggregator.build(layout.size),
        config.optimizer.build(layout.size),
        release_codec=config.release,
        lineage=lineage,
        max_staleness=config.max_staleness,
        clip=config.clip,
    )
    counted: set[Name] = set()
    digests = {(0, coordinator.published.sha256.hex())}
    with closing(Journal(config.journal_path)) as journal:
        for kept in journal.rows(0, ALL):
            update = wire.open_frame(kept.frame).message
            assert isinstance(update, Update), "nobody rolls back in a chaos run"
            outcome = coordinator.submit(update)
            if outcome.verdict == "accepted":
                counted.add((update.vehicle, update.boot, update.sequence))
            if outcome.released:
                digests.add((outcome.version, coordinator.published.sha256.hex()))
    return Replay(counted, digests)
