"""A damaged journal file: what can be read goes on, what cannot is named, the file is set aside."""

import asyncio

import pytest

from fleetfl.storage.journal import Journal, JournalDamaged
from fleetfl.storage.journal_repair import UNKNOWN, repair

pytestmark = pytest.mark.unit
PAGE = 4096


def keep(journal, make_update, numbers):
    async def append():
        for n in numbers:
            await journal.append(make_update(sequence=n), bytes([n % 256]) * 1400)

    asyncio.run(append())


@pytest.fixture
def path(tmp_path, make_update):
    """A journal of 60 rows, two or three a page, all in the main file."""
    path = tmp_path / "journal" / "updates.sqlite"
    journal = Journal(path)
    keep(journal, make_update, range(60))
    journal.close()
    return path


def overwrite(path, page):
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)


def test_a_sound_journal_is_left_alone(path):
    before = path.stat().st_ino
    assert repair(path, 0) is None
    assert path.stat().st_ino == before


def test_rows_of_other_pages_are_saved_and_the_lost_are_named(path, make_update):
    overwrite(path, path.stat().st_size // PAGE // 2)
    journal = Journal(path)
    with pytest.raises(JournalDamaged):
        journal.rows(0, 100)
    made = repair(path, 0)
    assert made is not None
    assert made.aside.exists()
    assert 0 < len(made.lost) < 60
    rows = journal.rows(0, 100)
    assert [kept.row for kept in rows] == list(range(1, 61))
    assert tuple(kept.row for kept in rows if not kept.is_whole) == made.lost
    assert not made.is_complete
    keep(journal, make_update, [99])
    assert journal.rows(60, 9)[0].row == 61
    journal.close()


def test_a_gateway_with_the_old_file_open_goes_on_in_the_new_one(path, make_update):
    gateway = Journal(path)
    keep(gateway, make_update, [200])
    overwrite(path, path.stat().st_size // PAGE // 2)
    made = repair(path, 61)
    assert made is not None
    assert made.is_complete  # what is lost lies below the floor
    keep(gateway, make_update, [201])
    reader = Journal(path)
    (kept,) = reader.rows(61, 9)
    assert (kept.row, kept.is_whole) == (62, True)
    gateway.close()
    reader.close()


def test_where_nothing_can_be_read_numbers_go_on_far_beyond(path, make_update):
    overwrite(path, 1)
    journal = Journal(path)
    with pytest.raises(JournalDamaged):
        journal.rows(0, 1)
    made = repair(path, 60)
    assert made is not None
    assert (made.saved, made.lost, made.is_complete) == (0, (), False)
    keep(journal, make_update, [99])
    assert journal.rows(0, 9)[0].row == 60 + UNKNOWN + 1
    journal.close()


def test_a_repair_that_was_cut_off_is_finished(path):
    new = path.with_name(path.name + ".new")
    path.rename(new)
    journal = Journal(path)
    with pytest.raises(JournalDamaged, match="repair was cut off"):
        journal.rows(0, 1)
    assert repair(path, 0) is None
    assert len(journal.rows(0, 100)) == 60
    journal.close()
