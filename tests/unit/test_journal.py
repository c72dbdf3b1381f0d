"""The journal: kept before it is acknowledged, once, in order, and known to be whole."""

import asyncio
import random
import sqlite3
import subprocess
import sys

import pytest

from fleetfl.protocol import wire
from fleetfl.storage.journal import Config, Journal, JournalError

pytestmark = pytest.mark.unit


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "deep" / "journal.sqlite")
    yield opened
    opened.close()


def keep(journal, *updates):
    """Append all at once; gives their rows."""

    async def append():
        frames = [wire.encode(one) for one in updates]
        return await asyncio.gather(*map(journal.append, updates, frames))

    return [place.row for place in asyncio.run(append())]


def test_rows_come_back_in_the_order_of_their_numbers(journal, make_update):
    updates = [make_update(sequence=n, vehicle=f"v{n % 3}") for n in (5, 1, 9, 2)]
    assert keep(journal, *updates) == [1, 2, 3, 4]
    kept = journal.rows(1, 2)
    assert [(k.row, wire.decode(k.frame), k.is_whole) for k in kept] == [
        (2, updates[1], True),
        (3, updates[2], True),
    ]


def test_a_repeat_gets_the_row_that_it_has(journal, make_update):
    one, other = make_update(sequence=1), make_update(sequence=1, boot="c")
    assert keep(journal, one, other, one) == [1, 2, 1]
    assert keep(journal, one) == [1]
    assert len(journal.rows(0, 9)) == 2


def test_appends_that_come_together_share_a_commit(journal, make_update, monkeypatch):
    """The first is committed alone; the 49 that come meanwhile are committed with one fsync."""
    sizes, commit = [], journal._commit
    monkeypatch.setattr(journal, "_commit", lambda e: (sizes.append(len(e)), commit(e))[1])

    async def append():
        updates = [make_update(sequence=n) for n in range(50)]
        first = asyncio.create_task(journal.append(updates[0], b"f"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, *(journal.append(u, b"f") for u in updates[1:]))

    asyncio.run(append())
    assert sizes == [1, 49]


def test_gateways_share_a_journal_and_no_row_appears_before_one_that_was_read(
    tmp_path, make_update
):
    journals = [Journal(tmp_path / "journal.sqlite") for _ in range(3)]

    async def fill(journal, vehicle):
        for n in range(20):
            await journal.append(make_update(vehicle=vehicle, sequence=n), b"f")

    async def read(journal):
        seen = []
        while len(seen) < 60:
            seen += [kept.row for kept in journal.rows(seen[-1] if seen else 0, 7)]
            await asyncio.sleep(0)
        return seen

    async def scenario():
        vehicles = ("v1", "v2", "v3")
        *_, seen = await asyncio.gather(*map(fill, journals, vehicles), read(journals[0]))
        return seen

    seen = asyncio.run(scenario())
    assert len(set(seen)) == 60
    assert seen == [kept.row for kept in journals[1].rows(0, 100)]
    for journal in journals:
        journal.close()


def test_a_changed_byte_is_noticed(journal, make_update):
    keep(journal, make_update(sequence=0), make_update(sequence=1))
    with sqlite3.connect(journal.path) as other:
        other.execute("UPDATE updates SET frame = x'ff' || substr(frame, 2) WHERE row = 1")
    other.close()
    assert [kept.is_whole for kept in journal.rows(0, 9)] == [False, True]
    journal.drop(1)
    assert keep(journal, make_update(sequence=0)) == [3]


def test_only_rows_that_no_recovery_needs_are_trimmed(journal, make_update):
    keep(journal, *(make_update(sequence=n) for n in range(10)))
    journal.trim(4, Config(keep_s=3600))
    assert len(journal.rows(0, 99)) == 10
    journal.trim(4, Config(keep_s=0))
    assert [kept.row for kept in journal.rows(0, 99)] == [5, 6, 7, 8, 9, 10]


def test_beyond_its_size_the_oldest_go(journal, make_update):
    """400 rows of some 4 KB; 1 MB holds about 256 of them."""
    frame = bytes(4000)

    async def fill():
        await asyncio.gather(*(journal.append(make_update(sequence=n), frame) for n in range(400)))

    asyncio.run(fill())
    journal.trim(380, Config(keep_bytes=2**20))
    left = [kept.row for kept in journal.rows(0, 999)]
    assert left[-1] == 400
    assert 100 <= len(left) <= 260
    journal.trim(380, Config(keep_bytes=0))
    assert [kept.row for kept in journal.rows(0, 999)] == list(range(381, 401))


def test_numbers_are_not_given_again(journal, make_update):
    keep(journal, make_update(sequence=0), make_update(sequence=1))
    journal.trim(2, Config(keep_s=0))
    assert keep(journal, make_update(sequence=2)) == [3]


def test_a_journal_that_was_lost_goes_on_with_its_numbers(journal, make_update):
    assert journal.number_past(0)
    assert not journal.number_past(7)
    assert keep(journal, make_update(sequence=0)) == [8]
    assert journal.number_past(7)
    assert keep(journal, make_update(sequence=1)) == [9]


FILL = """
import asyncio, random, resource, sys
from pathlib import Path
from fleetfl.storage.journal import Journal, JournalError
from fleetfl.protocol.messages import Update

def update(n):
    return Update("v", "b", n, 0, bytes(8), 1, 1, 0, 0, 0.5, "float32", b"")

async def main():
    journal = Journal(Path(sys.argv[1]))
    await journal.append(update(0), bytes(1000))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    kept, failed = [0], []
    for n in range(1, 60):
        try:
            await journal.append(update(n), random.Random(n).randbytes(20_000))
        except JournalError as full:
            failed.append(n)
        else:
            kept.append(n)
    assert failed, "the disk did not fill"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for n in failed:
        await journal.append(update(n), random.Random(n).randbytes(20_000))
    print(len(kept), len(failed), len(journal.rows(0, 999)))

asyncio.run(main())
"""


def test_a_full_disk_costs_nothing_that_was_kept_and_ends_by_itself(tmp_path):
    """A process whose files may not grow beyond 200 KB, until they may."""
    path = tmp_path / "journal.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept, failed, found = map(int, done.stdout.split())
    assert kept > 1
    assert (kept + failed, found) == (60, 60)
    journal = Journal(path)
    rows = journal.rows(0, 999)
    assert all(kept.is_whole for kept in rows)
    whole = {kept.frame for kept in rows}
    assert whole == {bytes(1000)} | {random.Random(n).randbytes(20_000) for n in range(1, 60)}
    journal.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from fleetfl.storage.journal import Journal
from fleetfl.protocol.messages import Update

async def main():
    journal = Journal(Path(sys.argv[1]))
    for n in range(100_000):
        update = Update("v", "b", n, 0, bytes(8), 1, 1, 0, 0, 0.5, "float32", b"")
        await journal.append(update, bytes(1500))
        print(n, flush=True)

asyncio.run(main())
"""


def test_what_was_appended_outlives_a_killed_process(tmp_path):
    path = tmp_path / "journal.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        last = int(process.stdout.readline())
    process.kill()
    last = max([last, *map(int, process.stdout.read().split())])
    process.wait(10)
    process.stdout.close()
    journal = Journal(path)
    rows = journal.rows(0, 100_000)
    assert [kept.row for kept in rows][: last + 1] == list(range(1, last + 2))
    assert all(kept.is_whole for kept in rows)
    journal.close()


def test_a_file_that_is_no_journal_is_named(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"junk" * 1000)
    with pytest.raises(JournalError, match=r"journal\.sqlite: ."):
        Journal(path).rows(0, 1)
