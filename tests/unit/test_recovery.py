"""An aggregator that dies between any two rows ends with the same bits, and tells each update once."""

import asyncio
import shutil
import sqlite3

import numpy as np
import pytest
from msgspec.structs import replace

from actors.aggregator import AggregatorActor
from actors.config import ServerConfig
from actors.startup import set_aside
from fleetfl.codecs import decoder
from fleetfl.coordination.coordinator import Coordinator, Refusal
from fleetfl.events.event_log import EventReader
from fleetfl.protocol import wire
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.storage.checkpoints import CheckpointError, Checkpoints
from fleetfl.storage.journal import Journal, JournalError
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
LAYOUT = Layout((("w", (5, 4)),))
NUM = 13


@pytest.fixture
def config(tmp_path):
    return config_in(tmp_path)


def config_in(folder, **settings):
    write_adapter(folder / "zero.safetensors", LAYOUT, np.zeros(20, np.float32))
    return ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": {"classes": ["a", "b"]},
            "transport": {"kind": "memory"},
            "state": folder,
            "initial": folder / "zero.safetensors",
            "aggregator": {"kind": "fedbuff", "goal": 3},
            "optimizer": {"momentum": 0.5},
            "release": {"kind": "int8"},
            "checkpoint_s": 0,
            **settings,
        }
    )


@pytest.fixture
def updates(make_update):
    """Twelve sound ones, which make four versions, and a stranger's at 5."""
    rng = np.random.default_rng(3)
    codec = decoder("int8", LAYOUT)
    return [
        make_update(
            codec="int8",
            body=codec.encode(rng.normal(size=20).astype(np.float32)),
            layout=b"another1" if n == 5 else LAYOUT.fingerprint,
            vehicle=f"v{rng.integers(4)}",
            sequence=n,
        )
        for n in range(NUM)
    ]


def keep(journal, updates):
    async def append():
        return [(await journal.append(one, wire.encode(one))).row for one in updates]

    return asyncio.run(append())


def ask(aggregator, *rows):
    async def outcomes():
        found = [await aggregator.outcome(row) for row in rows]
        await aggregator.saving.ended()
        return found

    return asyncio.run(outcomes())


def end(coordinator):
    """Version, SHA-256 of what is published, and what is optimized, to the bit."""
    published = coordinator.published
    return published.version, published.sha256.hex(), coordinator.params.tobytes()


def unbroken(config, updates):
    """The end of the same arrivals on a Coordinator that knows no file."""
    coordinator = Coordinator.from_settings(config, np.zeros(20, np.float32), LAYOUT)
    for update in updates:
        coordinator.submit(update)
    return end(coordinator)


def told(config, kind):
    return [e for e in EventReader(config.state / "events.jsonl").read() if e["event"] == kind]


@pytest.mark.parametrize("checkpoint_s", [0, 3600])
@pytest.mark.parametrize("counted", range(NUM + 1))
def test_dying_after_any_row_changes_no_bit_and_no_line(tmp_path, updates, counted, checkpoint_s):
    """With a checkpoint at that row, or with none but the first."""
    config = config_in(tmp_path, checkpoint_s=checkpoint_s)
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates[:counted]))  # and dies: nothing is closed or saved
    rows = keep(Journal(config.journal_path), updates)
    second = AggregatorActor(config)
    outcomes = ask(second, *rows)
    assert second.coordinator.published.generation == first.coordinator.published.generation
    assert end(second.coordinator) == unbroken(config, updates)
    fresh = {o.verdict for n, o in enumerate(outcomes) if n >= counted and n != 5}
    assert fresh <= {"accepted"}
    sound = [n for n in range(NUM) if n != 5]
    assert [e["sequence"] for e in told(config, "accepted")] == sound
    assert [e["sequence"] for e in told(config, "refused")] == [5]
    assert {e["version"] for e in told(config, "released")} == set(range(5))


@pytest.mark.parametrize("checkpoint_s", [0, 3600])
@pytest.mark.parametrize("counted", [2, 3, 8, NUM])
def test_dying_leaves_every_release_on_disk_with_what_it_was_made_of(
    tmp_path, updates, counted, checkpoint_s
):
    """Goal 3, and number 5 is refused: 0-2, 3, 4, 6, 7-9 and 10-12 make versions 1 to 4."""
    config = config_in(tmp_path, checkpoint_s=checkpoint_s)
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates[:counted]))
    keep(Journal(config.journal_path), updates)
    second = AggregatorActor(config)
    second.state.keep()
    records = [entry.record for entry in config.releases.entries()]
    made_of = [[each.sequence for each in record.updates or ()] for record in records]
    assert made_of == [[], [0, 1, 2], [3, 4, 6], [7, 8, 9], [10, 11, 12]]
    released = {e["version"]: e["sha256"] for e in told(config, "released")}
    assert {record.version: record.sha256 for record in records} == released
    generation = second.coordinator.published.generation
    assert [record.parent for record in records] == [None, *(f"{generation}/{v}" for v in range(4))]
    assert {record.config for record in records} == {second.state.registrar.fingerprint}
    assert config.releases.config(records[0].config)["aggregator"]["goal"] == 3


def test_no_checkpoint_vouches_for_a_release_that_is_not_on_disk(config, updates):
    """Where the registry was there is a file: a replay has to make those releases again."""
    aggregator = AggregatorActor(config)
    shutil.rmtree(config.releases.folder)
    config.releases.folder.write_bytes(b"")
    ask(aggregator, *keep(aggregator.journal, updates))
    assert [path.stem.lstrip("0") for path in config.checkpoint_folder.iterdir()] == [""]
    assert "are not in" in told(config, "checkpoint_failed")[-1]["detail"]
    config.releases.folder.unlink()
    second = AggregatorActor(config)
    second.state.keep()
    assert {entry.version for entry in config.releases.entries()} == set(range(5))


def test_what_was_counted_is_saved_though_no_more_comes(config, updates, monkeypatch):
    monkeypatch.setattr("actors.aggregator.TICK_S", 0.01)
    keep(Journal(config.journal_path), updates)
    aggregator = AggregatorActor(config)

    async def wait():
        running = asyncio.create_task(aggregator.run())
        while len(config.releases.entries()) < 5:
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(wait(), 30))


def test_dying_after_every_row_changes_no_bit(tmp_path, config, updates):
    journal = Journal(config.journal_path)
    for one in updates:
        (row,) = keep(journal, [one])
        ask(AggregatorActor(config), row)
    assert end(AggregatorActor(config).coordinator) == unbroken(config, updates)


def test_the_same_question_gets_the_same_answer(config, updates):
    aggregator = AggregatorActor(config)
    rows = keep(aggregator.journal, updates)
    assert ask(aggregator, *rows) == ask(aggregator, *rows)


def test_after_a_crash_what_was_counted_is_still_counted_and_what_was_refused_is_not(
    config, updates
):
    first = AggregatorActor(config)
    rows = keep(first.journal, updates)
    ask(first, *rows)
    outcomes = ask(AggregatorActor(config), *rows)
    assert [o.verdict for o in outcomes[:5]] == ["duplicate"] * 5
    assert (outcomes[5].verdict, outcomes[5].reason.value) == ("refused", "earlier")


def test_a_damaged_checkpoint_means_a_longer_replay_to_the_same_bits(tmp_path, config, updates):
    first = AggregatorActor(config)
    for one in updates:
        ask(first, *keep(first.journal, [one]))
    newest = max(config.checkpoint_folder.glob("*.checkpoint"))
    newest.write_bytes(newest.read_bytes()[:-3])
    assert end(AggregatorActor(config).coordinator) == unbroken(config, updates)
    assert told(config, "aggregator_started")[-1]["replayed"] > 0


def test_rows_are_trimmed_behind_both_checkpoints_and_a_repeat_is_known_all_the_same(
    tmp_path, updates
):
    config = config_in(tmp_path, journal={"keep_s": 0})
    aggregator = AggregatorActor(config)
    for one in updates:
        ask(aggregator, *keep(aggregator.journal, [one]))
    left = [kept.row for kept in aggregator.journal.rows(0, 99)]
    assert left == [aggregator.saving.checkpoints.safe_row + 1]
    again = keep(aggregator.journal, [updates[0], updates[5]])
    assert again == [NUM + 1, NUM + 2]
    repeat, refused = ask(aggregator, *again)
    assert (repeat.verdict, refused.verdict, refused.reason.value) == (
        "duplicate",
        "refused",
        "layout",
    )
    assert end(AggregatorActor(config).coordinator) == end(aggregator.coordinator)


def test_a_damaged_row_is_passed_over_loudly_and_versions_get_another_name(
    tmp_path, updates, caplog
):
    """Counted before the crash and lost after it: version 1 comes again with other bits."""
    config = config_in(tmp_path, checkpoint_s=3600)
    first = AggregatorActor(config)
    rows = keep(first.journal, updates[:3])
    assert ask(first, *rows)[-1].released
    damage(config, 2)
    second = AggregatorActor(config)
    assert "row 2" in caplog.text
    assert "is DAMAGED" in caplog.text
    assert second.coordinator.published.generation != first.coordinator.published.generation
    with pytest.raises(JournalError, match="has no row 2"):
        ask(second, rows[1])
    (again,) = keep(second.journal, [updates[1]])
    (outcome,) = ask(second, again)
    assert (outcome.verdict, outcome.released) == ("accepted", True)
    records = [entry.record for entry in config.releases.entries()]
    name = second.coordinator.published.generation
    # The lost row may have been counted: nobody knows whether this is the version 0 that was published.
    assert (f"{name}/0", records[0].name) in {(r.name, r.parent) for r in records}
    third = AggregatorActor(config)
    assert third.coordinator.published.generation == second.coordinator.published.generation
    assert end(third.coordinator) == end(second.coordinator)


def damage(config, row):
    with sqlite3.connect(config.journal_path) as other:
        other.execute("UPDATE updates SET checksum = checksum + 1 WHERE row = ?", (row,))
    other.close()


def test_a_damaged_row_that_a_full_disk_keeps_from_being_passed_over_is_so_later(config, updates):
    """Were it taken for passed over, its vehicle's repeats would be sent to that row for ever."""
    aggregator = AggregatorActor(config)
    rows = keep(aggregator.journal, updates[:2])
    damage(config, rows[1])
    folder = config.checkpoint_folder
    folder.rename(folder.with_name("aside"))
    folder.write_bytes(b"")
    with pytest.raises(CheckpointError):
        ask(aggregator, rows[1])
    folder.unlink()
    with pytest.raises(JournalError, match="has no row 2"):
        ask(aggregator, rows[1])
    (again,) = keep(aggregator.journal, [updates[1]])
    assert again > rows[1]
    assert ask(aggregator, again)[0].verdict == "accepted"


def test_a_damaged_row_that_was_passed_over_but_not_dropped_makes_room_for_its_repeat(
    config, updates, monkeypatch
):
    first = AggregatorActor(config)
    rows = keep(first.journal, updates[:2])
    damage(config, rows[1])
    monkeypatch.setattr(first.journal, "drop", lambda row: None)  # as if it had died before
    with pytest.raises(JournalError, match="has no row 2"):
        ask(first, *rows)
    second = AggregatorActor(config)
    with pytest.raises(JournalError, match="has no row 2"):
        ask(second, rows[1])
    (again,) = keep(second.journal, [updates[1]])
    assert ask(second, again)[0].verdict == "accepted"


def test_without_a_checkpoint_it_goes_on_and_the_next_one_covers_all(config, updates):
    """Where the folder was there is a file, until there is none."""
    aggregator = AggregatorActor(config)
    for path in config.checkpoint_folder.iterdir():
        path.unlink()
    config.checkpoint_folder.rmdir()
    config.checkpoint_folder.write_bytes(b"")
    for one in updates[:7]:
        ask(aggregator, *keep(aggregator.journal, [one]))
    assert len(told(config, "checkpoint_failed")) == 7
    assert len(told(config, "accepted")) == 6
    config.checkpoint_folder.unlink()
    ask(aggregator, *keep(aggregator.journal, updates))
    second = AggregatorActor(config)
    assert told(config, "aggregator_started")[-1]["replayed"] == 0
    assert end(second.coordinator) == unbroken(config, updates)


def test_a_lost_journal_costs_only_what_no_checkpoint_had(config, updates, caplog):
    first = AggregatorActor(config)
    for one in updates[:6]:
        ask(first, *keep(first.journal, [one]))
    for path in config.journal_path.parent.iterdir():
        path.unlink()
    second = AggregatorActor(config)
    assert "was LOST" in caplog.text
    outcomes = ask(second, *keep(second.journal, updates))
    assert [o.verdict for o in outcomes[:5]] == ["duplicate"] * 5
    assert [o.verdict for o in outcomes[6:]] == ["accepted"] * 7
    assert end(second.coordinator) == unbroken(config, updates)


def test_a_row_that_is_not_there_is_an_error(config):
    with pytest.raises(JournalError, match="has no row 9"):
        ask(AggregatorActor(config), 9)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, config):
    AggregatorActor(config)
    write_adapter(config.initial, Layout.flat(3), np.zeros(3, np.float32))
    with pytest.raises(CheckpointError, match="start over"):
        AggregatorActor(config)
    set_aside(config)
    assert AggregatorActor(config).coordinator.layout == Layout.flat(3)
    assert [e["version"] for e in told(config, "released")] == [0]
    assert len(list(tmp_path.glob("before-*/checkpoints/*.checkpoint"))) == 1


MEANT = LAYOUT.meant({"classes": ["a", "b"], "adapter": {"kind": "lora", "alpha": 16.0}})


def as_older_version(config):
    """Have the newest checkpoint be as a version wrote it that noted shapes alone."""
    checkpoints = Checkpoints(config.checkpoint_folder)
    row, state = checkpoints.newest()
    for name in ("parts", "older_rows"):
        del state[name]
    del state["coordinator"]["last_without_meaning"]
    checkpoints.write(row, state)


def test_a_checkpoint_that_notes_no_meaning_goes_on_and_its_rows_count(config, updates, caplog):
    """Also when it ends before the next checkpoint; from there on what says nothing is refused."""
    AggregatorActor(config)
    as_older_version(config)
    keep(Journal(config.journal_path), updates)
    expected = AggregatorActor(config).coordinator.published.sha256  # of shapes alone, as before
    for path in config.checkpoint_folder.iterdir():
        path.unlink()
    set_aside(config)
    AggregatorActor(config)
    as_older_version(config)
    keep(Journal(config.journal_path), updates)
    write_adapter(config.initial, MEANT, np.zeros(20, np.float32))
    first = AggregatorActor(config)
    assert "older version" in caplog.text
    assert first.coordinator.published.sha256 == expected
    assert first.coordinator.last_without_meaning == first.coordinator.version > 0
    again = AggregatorActor(config)
    assert again.coordinator.published.sha256 == expected
    late = replace(updates[0], sequence=99, base_version=again.coordinator.version)
    meant = replace(late, sequence=100, layout=MEANT.fingerprint, parts=MEANT.parts)
    again.coordinator.last_without_meaning -= 1
    assert again.coordinator.submit(late).reason == Refusal.LAYOUT
    assert again.coordinator.submit(meant).verdict == "accepted"


def test_a_checkpoint_of_another_meaning_names_the_part(config):
    write_adapter(config.initial, MEANT, np.zeros(20, np.float32))
    AggregatorActor(config)
    other = LAYOUT.meant({"classes": ["b", "a"], "adapter": {"kind": "lora", "alpha": 16.0}})
    write_adapter(config.initial, other, np.zeros(20, np.float32))
    with pytest.raises(CheckpointError, match=r"differs in classes .*start over"):
        AggregatorActor(config)


def test_what_came_while_nobody_asked_is_counted_at_the_start(config, updates):
    keep(Journal(config.journal_path), updates)
    assert AggregatorActor(config).counted == NUM
