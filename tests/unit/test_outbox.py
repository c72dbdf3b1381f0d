"""The outbox: kept until its end is known, in order, over restarts, within its bounds, and on record."""

import sqlite3

import numpy as np
import pytest

from fleetfl.releases.versions import CurrentRelease
from fleetfl.vectors import Layout, digest
from vehicle_agent.outbox import (
    Config,
    Memory,
    Newest,
    Outbox,
    OutboxError,
    Produced,
    Waiting,
    expired_updates,
)

pytestmark = pytest.mark.unit


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def put(make_update):
    def put(
        box, sequence, frame=b"x", *, boot="a", base=0, generation="one", layout=bytes(8), **keep
    ):
        update = make_update(
            boot=boot, sequence=sequence, base_version=base, generation=generation, layout=layout
        )
        box.put(update, frame, **keep)

    return put


def names(box):
    return [item.name for item in box.waiting()]


def test_keeps_order_and_survives_reopening(tmp_path, put):
    box = Outbox(tmp_path / "deep" / "outbox.db")
    put(box, 0, b"x")
    put(box, 1, b"y")
    box.close()
    box = Outbox(tmp_path / "deep" / "outbox.db")
    assert len(box) == 2
    put(box, 0, b"z", boot="b")
    assert names(box) == [("a", 0), ("a", 1), ("b", 0)]
    assert [box.frame(*name) for name in names(box)] == [b"x", b"y", b"z"]
    box.close()


def test_an_end_is_noted_once_and_stays_on_record(tmp_path, put):
    box = Outbox(tmp_path / "outbox.db")
    for sequence in range(4):
        put(box, sequence)
    assert box.resolve("a", 0, "accepted")
    assert not box.resolve("a", 0, "duplicate")
    assert not box.resolve("a", 9, "accepted")
    assert box.resolve("a", 2, "refused", "stale")
    assert box.resolve("a", 3, "expired", "age")
    assert box.frame("a", 0) is None
    for _ in range(2):
        assert names(box) == [("a", 1)]
        assert box.outcomes == {"accepted": 1, "refused stale": 1, "expired age": 1}
        record = box.produced()
        assert [(p.sequence, p.verdict, p.reason) for p in record] == [
            (0, "accepted", ""),
            (1, None, ""),
            (2, "refused", "stale"),
            (3, "expired", "age"),
        ]
        assert box.produced(after=record[2].id) == [Produced(4, "a", 3, "expired", "age")]
        box.close()
        box = Outbox(tmp_path / "outbox.db")
    box.close()


def test_the_record_keeps_the_newest_ends_and_all_that_waits(tmp_path, put):
    box = Outbox(tmp_path / "outbox.db", Config(max_record=3))
    for sequence in range(10):
        put(box, sequence)
        if sequence:
            box.resolve("a", sequence, "accepted")
    assert [p.sequence for p in box.produced()] == [0, 7, 8, 9]
    assert box.outcomes == {"accepted": 9}
    box.close()


def test_what_training_goes_on_from_is_that_of_the_newest_update_over_a_restart(tmp_path, put):
    box = Outbox(tmp_path / "outbox.db")
    model, other_model = Layout.flat(3), Layout.flat(4)
    layout, other = model.fingerprint, other_model.fingerprint
    assert (box.residual(layout), box.held(model), box.memory()) == (None, None, Memory())
    vector = np.float32([1, 2, 3])
    held = CurrentRelease("one", 7, digest(vector), vector)
    memory = Memory(2, 512, [1.0, 4.0])
    put(box, 0, layout=layout, residual=np.ones(3, np.float32), memory=Memory(1, 256, [1.0, 2.0]))
    put(box, 1, layout=layout, residual=np.full(3, 0.1, np.float32), memory=memory, held=held)
    box.close()
    box = Outbox(tmp_path / "outbox.db")
    np.testing.assert_array_equal(box.residual(layout), np.full(3, 0.1, np.float32))
    assert box.memory() == memory
    found = box.held(model)
    assert (found.generation, found.version, found.sha256) == ("one", 7, held.sha256)
    np.testing.assert_array_equal(found.vector, vector)
    assert (box.residual(other), box.held(other_model)) == (None, None)
    box.db.execute("UPDATE whole SET vector = zeroblob(12)")
    assert box.held(model) is None
    box.close()


def test_update_that_is_not_kept_leaves_the_residual_as_it_was(tmp_path, put):
    box = Outbox(tmp_path / "outbox.db")
    layout = b"layout-1"
    put(box, 0, layout=layout, residual=np.ones(3, np.float32))
    with pytest.raises(sqlite3.IntegrityError):
        put(box, 0, b"again", layout=layout, residual=np.zeros(3, np.float32))
    gone = box.resolve("a", 7, "refused", layout=layout, residual=np.zeros(3, np.float32))
    assert not gone
    np.testing.assert_array_equal(box.residual(layout), np.ones(3, np.float32))
    assert len(box) == 1
    box.close()


def test_age_is_what_agents_ran_since_and_no_date(tmp_path, put):
    """Made at 1000 s of one start, 50 s run; 10 s on the next start, whose clock begins anew: 60 s."""
    clock = Clock()
    box = Outbox(tmp_path / "outbox.db", now=clock)
    put(box, 0)
    clock.now_s += 50
    put(box, 1)
    box.close()
    clock.now_s = 3.0
    box = Outbox(tmp_path / "outbox.db", now=clock)
    clock.now_s += 10
    assert [item.age_s for item in box.waiting()] == [60.0, 10.0]
    box.close()


def waiting(sequence, *, base=0, num_bytes=10, age_s=0.0, generation="one"):
    return Waiting("a", sequence, generation, base, num_bytes, age_s)


def gone(items, newest=None, **bounds):
    found = expired_updates(items, Config(**bounds), newest)
    return [(item.sequence, reason) for item, reason in found]


def test_within_the_bounds_nothing_goes():
    items = [waiting(n, base=3, age_s=5) for n in range(4)]
    newest = Newest("one", 53, 50)
    assert gone(items, newest, max_age_s=5, max_updates=4, max_bytes=2**10) == []


def test_what_is_too_old_or_can_never_count_goes():
    """Newest is 60 and 50 are allowed: base 10 still counts, 9 does not; another generation is not judged."""
    items = [
        waiting(0, base=9),
        waiting(1, base=10),
        waiting(2, base=0, generation="another"),
        waiting(3, base=0, age_s=101),
    ]
    assert gone(items, Newest("one", 60, 50), max_age_s=100) == [(0, "stale"), (3, "age")]
    assert gone(items, Newest("one", 60, -1), max_age_s=100) == [(3, "age")]
    assert gone(items, None) == []


def test_the_oldest_give_way_to_count_and_bytes():
    """Of 5, 2 above the count of 3; of 3 * 600 bytes one above 1,500."""
    items = [waiting(n, num_bytes=600) for n in range(5)]
    assert gone(items, max_updates=3) == [(0, "count"), (1, "count")]
    assert gone(items, max_updates=3, max_bytes=1500) == [
        (0, "count"),
        (1, "count"),
        (2, "bytes"),
    ]


def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path, put, caplog):
    path = tmp_path / "outbox.db"
    box = Outbox(path)
    for sequence in range(50):
        put(box, sequence, bytes(5000))
    box.close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 20] = b"\xab" * (4096 * 19)
    path.write_bytes(content)
    box = Outbox(path)
    assert len(box) == 0
    put(box, 0)
    box.close()
    assert "is DAMAGED" in caplog.text
    assert (tmp_path / "outbox.db.damaged").read_bytes() == content


def test_what_turns_read_only_is_an_error_and_goes_on_when_it_is_mended(tmp_path, put):
    box = Outbox(tmp_path / "outbox.db")
    put(box, 0)
    box.db.execute("PRAGMA query_only = ON")
    with pytest.raises(OutboxError, match=r"outbox\.db: ."):
        put(box, 1)
    with pytest.raises(OutboxError):
        box.resolve("a", 0, "accepted")
    assert (names(box), box.outcomes) == ([("a", 0)], {})
    box.db.execute("PRAGMA query_only = OFF")
    put(box, 1)
    assert box.resolve("a", 0, "accepted")
    assert (names(box), len(box)) == ([("a", 1)], 1)
    box.close()
