"""Where a server cannot vouch for its versions it begins a generation with a higher number, and says why."""

import asyncio
import shutil
import sqlite3

import pytest

from actors.aggregator import AggregatorActor
from actors.announcer import place_to_pass
from actors.startup import set_aside
from fleetfl.events.event_log import EventLog
from fleetfl.protocol.messages import Snapshot
from fleetfl.releases.generations import (
    BEFORE_ALL,
    LAST_NUMBER,
    LAST_VERSION,
    GenerationError,
    number_of,
    order_of,
    successor,
)
from fleetfl.storage.checkpoints import CheckpointError
from fleetfl.storage.high_water import HighWater
from fleetfl.storage.journal import Journal
from tests.unit.test_recovery import ask, config_in, end, keep, told, unbroken, updates

pytestmark = pytest.mark.unit
__all__ = ["updates"]


@pytest.fixture
def config(tmp_path):
    return config_in(tmp_path)


def generation(aggregator):
    return aggregator.coordinator.published.generation


def why(config):
    return [event["why"] for event in told(config, "generation_began")]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("3-a1b2c3", 3),
        ("12-0", 12),
        *((name, 0) for name in ("a1b2c3", "", "0-a", "-1-a", "٣-a", "1-a\n", "1-", "1-a b")),
        (f"{10**15}-a", 0),
    ],
)
def test_a_name_without_a_number_counts_as_0(name, number):
    assert number_of(name) == number


def test_a_successor_is_higher_than_all_that_are_known():
    assert number_of(successor()) == 1
    assert number_of(successor(["2-a", "c0ffee", "10-b"])) == 11
    assert len({successor(["2-a"]) for _ in range(20)}) == 20


def test_nothing_stands_behind_the_last_number():
    """A name of one digit more has no number, so whoever asks for a higher one would ask for ever."""
    assert number_of(successor(past=LAST_NUMBER - 1)) == LAST_NUMBER
    with pytest.raises(GenerationError, match="nothing stands behind"):
        successor([f"{LAST_NUMBER}-a"])


def test_a_folder_named_like_the_last_generation_is_one_error_at_the_start(config):
    (config.releases.folder / f"{LAST_NUMBER}-a").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="nothing stands behind"):
        AggregatorActor(config)


def snapshot(name, version, sha256=bytes(32)):
    return Snapshot(name, version, bytes(8), sha256, "float32", b"")


@pytest.mark.parametrize(
    ("said", "newest", "expected"),
    [
        (("2-a", 4), ("2-a", 4), None),
        (("2-a", 3), ("2-a", 4), None),
        (("1-a", 9), ("2-b", 4), None),
        (("2-a", 5), ("2-a", 4), (2, 5)),
        (("3-a", 0), ("2-b", 4), (3, 0)),
        (("2-a", 3), ("2-b", 4), (2, LAST_VERSION)),  # two servers drew the same number
        (("old", 3), ("new", 4), (0, LAST_VERSION)),
    ],
)
def test_what_the_broker_has_of_ours_is_passed_where_it_stands_before_or_beside(
    said, newest, expected
):
    assert place_to_pass(snapshot(*said), snapshot(*newest)) == expected


def test_one_version_of_two_bits_is_passed():
    assert place_to_pass(snapshot("2-a", 4, b"x" * 32), snapshot("2-a", 4)) == (2, LAST_VERSION)


def test_a_number_on_disk_only_grows_and_damage_is_no_number(tmp_path):
    path = tmp_path / "n"
    water = HighWater(path)
    assert (water.number, water.is_known) == (0, False)
    for number in (3, 2, 7):
        water.raise_to(number)
    assert HighWater(path).number == 7
    for content in (b"", b"junk", b"\0" * 12 + b"!", bytes(11) + b"\1"):
        path.write_bytes(content)
        assert HighWater(path).number == 0


def test_a_stopped_server_has_a_checkpoint_of_all_that_it_counted(tmp_path, updates):
    """SIGTERM and Ctrl-C cancel `run`. No checkpoint was due for an hour."""
    config = config_in(tmp_path, checkpoint_s=3600)
    aggregator = AggregatorActor(config)

    async def scene():
        running = asyncio.create_task(aggregator.run())
        await asyncio.sleep(0)
        for row in [
            (await aggregator.journal.append(u, frame)).row for u, frame in framed(updates)
        ]:
            await aggregator.outcome(row)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scene())
    assert told(config, "aggregator_stopped")[0]["counted_row"] == len(updates)
    again = AggregatorActor(config_in(tmp_path, aggregator={"kind": "fedbuff", "goal": 7}))
    assert told(config, "aggregator_started")[-1]["replayed"] == 0
    assert (generation(again), end(again.coordinator)) == (
        generation(aggregator),
        end(aggregator.coordinator),
    )


def framed(updates):
    from fleetfl.protocol import wire

    return [(one, wire.encode(one)) for one in updates]


def test_rows_that_are_counted_again_under_other_settings_make_versions_of_another_generation(
    tmp_path, updates
):
    """Killed without a checkpoint at goal 3, started at goal 6: version 1 has other bits."""
    config = config_in(tmp_path, checkpoint_s=3600)
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates))
    other = config_in(tmp_path, aggregator={"kind": "fedbuff", "goal": 6})
    second = AggregatorActor(other)
    assert (number_of(generation(first)), number_of(generation(second))) == (1, 2)
    assert why(config) == ["rows are counted again under other settings"]
    assert generation(AggregatorActor(other)) == generation(second)
    assert order_of(second.snapshot) > order_of(first.snapshot)


def test_another_aggregator_that_cannot_go_on_from_the_checkpoint_is_named(tmp_path, updates):
    first = AggregatorActor(config_in(tmp_path))
    ask(first, *keep(first.journal, updates))
    with pytest.raises(CheckpointError, match=r"does not fit the `server` settings.*resume=false"):
        AggregatorActor(config_in(tmp_path, aggregator={"kind": "fedasync"}))


@pytest.mark.parametrize("gone", [[5], [1], [11, 12, 13], [2, 3, 7]])
def test_rows_that_no_trimming_explains_are_damage(tmp_path, updates, caplog, gone):
    """All were counted, and only the checkpoint of row 0 is there."""
    config = config_in(tmp_path, checkpoint_s=3600)
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates))
    delete(config, gone)
    second = AggregatorActor(config)
    assert "are MISSING" in caplog.text
    missing = {
        n for e in told(config, "journal_rows_missing") for n in range(e["first"], e["last"] + 1)
    }
    assert missing == set(gone)
    assert number_of(generation(second)) > number_of(generation(first))
    third = AggregatorActor(config)  # told once
    assert generation(third) == generation(second)
    (again,) = keep(third.journal, [updates[gone[0] - 1]])
    assert again == len(updates) + 1
    assert ask(third, again)[0].verdict == "accepted"


def delete(config, rows):
    with sqlite3.connect(config.journal_path) as other:
        other.executemany("DELETE FROM updates WHERE row = ?", [(row,) for row in rows])
    other.close()


def test_repeats_and_trimming_leave_no_gap(tmp_path, updates):
    """A repeat gets the row that it has, and takes no number."""
    config = config_in(tmp_path, journal={"keep_s": 0})
    aggregator = AggregatorActor(config)
    for one in updates:
        assert (
            keep(aggregator.journal, [one, one, one])[0]
            == keep(Journal(config.journal_path), [one])[0]
        )
        ask(aggregator, aggregator.journal.newest_row())
    assert aggregator.journal.newest_row() == len(updates)
    again = AggregatorActor(config)
    assert (why(config), end(again.coordinator)) == ([], unbroken(config, updates))


def test_a_journal_from_before_gaps_were_noticed_is_taken_as_it_is(tmp_path, updates):
    config = config_in(tmp_path, checkpoint_s=3600)
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates))
    first.journal.close()
    delete(config, [4])
    with sqlite3.connect(config.journal_path) as other:
        other.execute("DROP TABLE skipped")
    other.close()
    AggregatorActor(config)
    assert why(config) == []


def test_a_restored_state_begins_a_generation_once(config, updates):
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates[:7]))
    config.restored_path.write_text("{}")
    second = AggregatorActor(config)
    assert number_of(generation(second)) == 2
    assert end(second.coordinator) == unbroken(config, updates[:7])
    assert not config.restored_path.exists()
    assert generation(AggregatorActor(config)) == generation(second)
    outcomes = ask(second, *keep(second.journal, updates[7:]))
    assert {o.verdict for o in outcomes} == {"accepted"}  # trained from version 0 of generation 1


def test_who_names_a_later_version_has_it_from_this_server_before_it_lost_that(config, updates):
    aggregator = AggregatorActor(config)
    ask(aggregator, *keep(aggregator.journal, updates[:3]))

    async def scene():
        waiting = asyncio.create_task(aggregator.wait_for_version((1, 1)))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        snapshot, releases = await aggregator.announcement((4, 100))
        assert (number_of(snapshot.generation), snapshot.version) == (5, 1)
        assert [r.generation for r in releases] == [snapshot.generation]
        assert (await waiting).generation == snapshot.generation

    asyncio.run(scene())
    assert generation(AggregatorActor(config)) == generation(aggregator)
    assert "is out already" in why(config)[0]


def test_on_a_full_disk_nobody_hears_of_a_generation_that_is_not_on_it(config, updates):
    aggregator = AggregatorActor(config)
    ask(aggregator, *keep(aggregator.journal, updates[:3]))
    folder, before = config.checkpoint_folder, generation(aggregator)
    folder.rename(folder.with_name("aside"))
    folder.write_bytes(b"")

    async def scene():
        asking = asyncio.create_task(aggregator.wait_for_version((4, 100)))
        await asyncio.sleep(0.05)
        snapshot, (*_, newest) = await aggregator.announcement(BEFORE_ALL)
        assert {snapshot.generation, newest.generation} == {before}
        folder.unlink()
        return await asyncio.wait_for(asking, 10)

    assert number_of(asyncio.run(scene()).generation) > 4
    shutil.rmtree(folder)


def test_numbers_go_on_though_all_else_was_set_aside(config, updates):
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates[:3]))
    aside = set_aside(config)
    assert aside is not None
    assert (aside / "journal").is_dir()
    assert set_aside(config) is None, "nothing is there to be moved"
    second = AggregatorActor(config)
    assert (number_of(generation(second)), second.coordinator.version) == (2, 0)
    assert (why(config), told(config, "journal_lost")) == ([], [])


def test_nothing_that_a_vehicle_says_is_read_back_from_the_events(config, updates):
    """A signed status with `outcomes={"row": ...}` made the next start declare the journal lost."""
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates))
    for row in (2**53, 1):
        log = EventLog(config.state / "events.jsonl")
        said = {"bytes_up": 0, "bytes_down": 0, "waiting": 0, "note": f'"row": {row},'}
        log.write("online", vehicle="mallory", boot="b", version=0, outcomes={"row": row}, **said)
        again = AggregatorActor(config)
        assert again.told == len(updates)
        assert generation(again) == generation(first)
    assert told(config, "journal_lost") == []
    assert len(told(config, "accepted")) == len(updates) - 1


def test_events_may_be_deleted_at_any_time(config, updates):
    first = AggregatorActor(config)
    ask(first, *keep(first.journal, updates))
    (config.state / "events.jsonl").unlink()
    second = AggregatorActor(config)
    assert generation(second) == generation(first)
    assert (told(config, "accepted"), told(config, "journal_lost")) == ([], [])
