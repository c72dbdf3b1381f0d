"""Bytes of a stopped server's state flipped: it starts, says so loudly, and goes on from the last good."""

import asyncio

import numpy as np
import pytest

from actors.aggregator import AggregatorActor
from actors.config import ServerConfig
from fleetfl.codecs import decoder
from fleetfl.coordination.coordinator import Outcome
from fleetfl.events.event_log import EventReader
from fleetfl.protocol import wire
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.storage.journal import Journal, JournalDamaged
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (50, 40)),))
PAGE = 4096
NUM = 40
"""Updates of 2 KB: two a page."""


@pytest.fixture
def config(tmp_path):
    write_adapter(tmp_path / "zero.safetensors", LAYOUT, np.zeros(2000, np.float32))
    return ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": {"classes": ["a", "b"]},
            "transport": {"kind": "memory"},
            "state": tmp_path,
            "initial": tmp_path / "zero.safetensors",
            "aggregator": {"kind": "fedbuff", "goal": 4},
            "release": {"kind": "int8"},
            "checkpoint_s": 3600,
        }
    )


@pytest.fixture
def updates(make_update):
    rng, codec = np.random.default_rng(3), decoder("int8", LAYOUT)
    return [
        make_update(
            codec="int8",
            body=codec.encode(rng.normal(size=2000).astype(np.float32)),
            layout=LAYOUT.fingerprint,
            sequence=n,
        )
        for n in range(NUM)
    ]


def keep(journal, updates):
    async def append():
        return [(await journal.append(one, wire.encode(one))).row for one in updates]

    return asyncio.run(append())


def ask(aggregator, rows):
    return asyncio.run(aggregator.outcomes_of(rows))


def stopped(config, updates, *, saved):
    """The end of a server that has counted these, the first `saved` of them in a checkpoint."""
    aggregator = AggregatorActor(config)
    ask(aggregator, keep(aggregator.journal, updates[:saved]))
    aggregator.saving.keep(saved, aggregator.state.values())
    ask(aggregator, keep(aggregator.journal, updates[saved:]))
    aggregator.journal.close()  # all of it is in the main file then
    published = aggregator.coordinator.published
    return published.generation, published.version, published.sha256


def told(config, kind):
    return [e for e in EventReader(config.state / "events.jsonl").read() if e["event"] == kind]


def flip(path, at, num_bytes):
    with path.open("r+b") as file:
        file.seek(at)
        bits = bytes(b ^ 0xA5 for b in file.read(num_bytes))
        file.seek(at)
        file.write(bits)


def num_pages(config):
    return config.journal_path.stat().st_size // PAGE


def answered(aggregator, updates):
    """Verdicts, with each update sent again until it has one."""
    verdicts = {}
    for _ in range(4):
        waiting = [n for n in range(len(updates)) if n not in verdicts]
        rows = keep(aggregator.journal, [updates[n] for n in waiting])
        for n, outcome in zip(waiting, ask(aggregator, rows), strict=True):
            if isinstance(outcome, Outcome):
                verdicts[n] = outcome.verdict
    return [verdicts.get(n) for n in range(len(updates))]


@pytest.mark.parametrize("page", range(1, 28, 3))
def test_a_server_goes_on_from_a_journal_with_a_damaged_page(config, updates, caplog, page):
    """All counted, half of it in a checkpoint; then one page after the other, also the first.

    What was counted behind the checkpoint and is lost counts anew, under another name of the generation.
    """
    generation, version, sha256 = stopped(config, updates, saved=NUM // 2)
    assert config.journal_path.stat().st_size > 28 * PAGE
    flip(config.journal_path, (page - 1) * PAGE, PAGE)
    aggregator = AggregatorActor(config)
    verdicts = answered(aggregator, updates)
    assert "DAMAGED" in caplog.text
    assert told(config, "journal_repaired") or told(config, "journal_damaged")
    assert verdicts[: NUM // 2] == ["duplicate"] * (NUM // 2)
    assert set(verdicts[NUM // 2 :]) <= {"accepted", "duplicate"}
    published = aggregator.coordinator.published
    assert published.version == version
    if published.generation == generation:
        assert published.sha256 == sha256
    aggregator.state.keep()
    again = AggregatorActor(config).coordinator.published
    assert (again.generation, again.sha256) == (published.generation, published.sha256)


def test_a_journal_without_its_end_is_missed(config, updates, caplog):
    """The log of events knows of rows that the journal has no more, as a damaged WAL leaves it."""
    generation, _, _ = stopped(config, updates, saved=4)
    for path in config.journal_path.parent.iterdir():
        path.unlink()
    keep(Journal(config.journal_path), updates[:10])
    aggregator = AggregatorActor(config)
    assert "was LOST, all or its end" in caplog.text
    assert aggregator.coordinator.published.generation != generation
    outcomes = ask(aggregator, keep(aggregator.journal, updates))
    assert [o.verdict for o in outcomes[4:10]] == ["accepted"] * 6
    rows = keep(aggregator.journal, updates[10:])
    assert rows[0] > NUM  # no number is given twice


def test_a_gateway_has_the_journal_repaired(config, updates):
    stopped(config, updates, saved=NUM)
    aggregator, gateway = AggregatorActor(config), Journal(config.journal_path)
    flip(config.journal_path, 0, PAGE)
    with pytest.raises(JournalDamaged):
        keep(gateway, updates[:1])
    asyncio.run(aggregator.repair_journal())
    rows = keep(gateway, updates[:1])
    assert ask(aggregator, rows)[0].verdict == "duplicate"


@pytest.mark.parametrize("at", [0, 10, 500, -1])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_leads_to_the_same_bits(
    config, updates, caplog, at
):
    before = stopped(config, updates, saved=NUM // 2)
    newest = max(config.checkpoint_folder.glob("*.checkpoint"))
    flip(newest, at % newest.stat().st_size, 1)
    aggregator = AggregatorActor(config)
    assert "is damaged: set aside, the one before is used" in caplog.text
    assert newest.name in told(config, "checkpoint_damaged")[0]["detail"]
    published = aggregator.coordinator.published
    assert (published.generation, published.version, published.sha256) == before
