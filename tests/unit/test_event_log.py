"""The event log: bounded, in files that follow each other, for any number of writers and readers."""

import os

import pytest

from actors.config import ServerConfig
from actors.startup import set_aside
from fleetfl.events.event_log import Config, EventLog, EventReader, parts

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("any_event")]
SMALL = Config(max_bytes=4096, older_files=2)


def numbers(events):
    return [event["number"] for event in events]


def test_a_full_file_gets_a_number_and_the_oldest_goes(tmp_path):
    """Lines of about 60 bytes, 500 of them: 30 KB, of which two full files of 4 KB and one more stay."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path, bounds=SMALL)
    for number in range(500):
        log.write("one", number=number, of="them")
    log.close()
    names = ["events.jsonl.2", "events.jsonl.1", "events.jsonl"]
    assert [part.name for part in parts(path)] == [n for n in names if (tmp_path / n).exists()]
    assert sum(part.stat().st_size for part in parts(path)) < 3 * 4_200
    left = numbers(EventReader(path).read())
    assert left == list(range(left[0], 500))
    assert len(left) > 100
    newest = numbers(EventReader(path, begin_with=2).read())
    assert newest == list(range(newest[0], 500))
    assert 0 < len(newest) < len(left)


def test_whoever_writes_or_reads_one_log_goes_on_in_its_next_file(tmp_path):
    path = tmp_path / "events.jsonl"
    writers = [EventLog(path, bounds=SMALL) for _ in range(3)]
    reader, read = EventReader(path), []
    for number in range(600):
        writers[number % 3].write("one", number=number)
        if number % 20 == 0:
            read += numbers(reader.read())
    read += numbers(reader.read())
    assert read == list(range(600))
    for log in writers:
        log.close()


@pytest.mark.parametrize("how", [os.unlink, lambda path: os.rename(path, f"{path}-20261130")])
def test_a_file_that_somebody_moves_or_deletes_is_begun_anew(tmp_path, how):
    """As logrotate does, and people whose disk is full."""
    path = tmp_path / "events.jsonl"
    log, reader = EventLog(path), EventReader(path)
    log.write("one", number=1)
    assert numbers(reader.read()) == [1]
    how(path)
    log.write("one", number=2)
    assert numbers(reader.read()) == [2]
    log.close()


def test_with_no_older_files_there_is_one(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, bounds=Config(max_bytes=4096, older_files=0))
    for number in range(200):
        log.write("one", number=number)
    assert [part.name for part in parts(path)] in ([], ["events.jsonl"])
    assert all(part.stat().st_size < 4_200 for part in parts(path))
    log.close()


def test_beginning_anew_sets_all_files_of_the_log_aside(tmp_path):
    config = ServerConfig.model_validate(
        {
            "fleet": "f",
            "model": {"classes": ["a", "b"]},
            "transport": {"kind": "memory"},
            "state": tmp_path,
        }
    )
    log = EventLog(tmp_path / "events.jsonl", bounds=SMALL)
    for number in range(150):
        log.write("one", number=number)
    log.close()
    before = sorted(part.name for part in parts(tmp_path / "events.jsonl"))
    assert len(before) > 1
    set_aside(config)
    assert parts(tmp_path / "events.jsonl") == []
    (aside,) = tmp_path.glob("before-*")
    assert sorted(part.name for part in aside.iterdir()) == before


@pytest.mark.parametrize("step", [1, 7, 90])
def test_a_reader_misses_nothing_and_reads_nothing_twice_though_file_numbers_come_again(
    tmp_path, step
):
    """A line is some 60 bytes, so that three files have 200 of them. The kernel gives a new file the number
    of the oldest, which was deleted just before.
    """
    bounds = Config(max_bytes=4096, older_files=2)
    log, reader, found = EventLog(tmp_path / "e", bounds=bounds), EventReader(tmp_path / "e"), []
    for n in range(1000):
        log.write("x", n=n, filler="." * 10)
        if n % step == 0:
            found += [event["n"] for event in reader.read()]
    found += [event["n"] for event in reader.read()]
    assert found == list(range(1000))


def test_a_reader_survives_files_that_are_renamed_between_its_list_and_its_look(
    tmp_path, monkeypatch
):
    """The list is from before the newest file got its number: its name is nobody's for a moment. What a
    writer that had it open adds to it later is read too, once.
    """
    path = tmp_path / "e"
    path.write_text('{"event": "x", "n": 1, "filler": "......"}\n')
    late, reader = path.open("a"), EventReader(path)
    listings = iter([[path], []])

    def renamed(_):
        listed = next(listings)
        if listed:
            path.rename(tmp_path / "e.1")
        return listed

    with monkeypatch.context() as patched:
        patched.setattr("fleetfl.events.event_log.parts", renamed)
        assert reader.read() == []
    assert [event["n"] for event in reader.read()] == [1]
    path.write_text('{"event": "x", "n": 3, "filler": "......"}\n')
    assert [event["n"] for event in reader.read()] == [3]
    late.write('{"event": "x", "n": 2, "filler": "......"}\n')
    late.close()
    assert [event["n"] for event in reader.read()] == [2]
    assert reader.read() == []
