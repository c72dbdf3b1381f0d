"""The outbox's file: what a change writes, what a kill leaves, and what an earlier version left."""

import os
import random
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fleetfl.codecs.top_signs import Config as TopSigns
from fleetfl.protocol.messages import Update
from fleetfl.releases.versions import CurrentRelease, Follower, Published
from fleetfl.vectors import Layout, digest
from vehicle_agent.error_feedback import ErrorFeedback
from vehicle_agent.outbox import MOST_ENDS, Config, Memory, Outbox, OutboxError, Produced
from vehicle_agent.outbox_file import FORMAT, PAGE_BYTES

pytestmark = pytest.mark.unit
SMALL = Layout.flat(600)


class History:
    """All that one vehicle learns, the same in every process: release N, then delta N, trained from it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        start = self.noise(-1)
        self.published = Published(start, layout, TopSigns(keep=0.2), generation="one")
        self.follower = Follower(layout)
        self.follower.adopt(self.published.whole())
        self.feedback = ErrorFeedback(TopSigns(keep=0.2).build(layout), layout.size, decay=0.9)
        self.number = 0

    def noise(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed + 1).normal(size=self.layout.size).astype(np.float32)

    def next(self) -> tuple[Update, np.ndarray, Memory, CurrentRelease]:
        """What `Outbox.put` is given for the next update."""
        packed = self.feedback.pack(self.noise(2 * self.number))
        self.feedback.residual = packed.residual
        step = self.noise(2 * self.number + 1)
        self.follower.apply(self.published.advance(self.published.vector + step))
        held = self.follower.held
        assert held is not None
        update = Update(
            "v1",
            "a",
            self.number,
            held.version,
            self.layout.fingerprint,
            1,
            1,
            0,
            0,
            0.5,
            "top_signs",
            packed.body,
        )
        self.number += 1
        return update, packed.residual, Memory(self.number, 6 * self.number), held

    def goes_on(self, box: Outbox, num_waiting: int = 3) -> None:
        """Into the outbox, and the oldest out of it."""
        update, residual, memory, held = self.next()
        box.put(update, update.body, residual=residual, memory=memory, held=held)
        if len(box) > num_waiting:
            box.resolve(*box.waiting()[0].name, "accepted")

    def up_to(self, number: int) -> "History":
        while self.number < number:
            self.last = self.next()
        return self

    def is_what_is_in(self, box: Outbox) -> None:
        """After as many updates as it has produced."""
        made = box.produced()
        self.up_to(len(made))
        assert [p.sequence for p in made] == list(range(len(made)))
        assert box.memory().num_trained == len(made)
        if not made:
            return
        update, residual, _, held = self.last
        assert box.waiting()[-1].sequence == update.sequence
        assert box.frame("a", update.sequence) == update.body
        np.testing.assert_array_equal(box.residual(self.layout.fingerprint), residual)
        kept = box.held(self.layout)
        assert kept is not None
        assert (kept.generation, kept.version, kept.sha256) == ("one", held.version, held.sha256)


def written_bytes() -> int:
    """By this process, to whatever files."""
    return int(re.findall(r"wchar: (\d+)", Path("/proc/self/io").read_text())[0])


def test_an_update_its_residual_its_receipt_and_a_release_are_50_kb_of_writes_at_most(tmp_path):
    """Residual and version are 155 KB each as float32. The mean over 100, with the log's way into the file,
    and the whole version that comes after 155 KB of steps.
    """
    history, path = History(Layout.flat(38_794)), tmp_path / "outbox.db"
    box = Outbox(path)
    history.goes_on(box, num_waiting=0)
    before = written_bytes()
    for _ in range(100):
        history.goes_on(box, num_waiting=0)
    box.close()
    assert (written_bytes() - before) / 100 < 45_000
    box = Outbox(path)
    assert box.held(history.layout).sha256 == history.follower.held.sha256
    box.close()


def test_killed_at_any_moment_it_has_whole_updates_and_all_that_belongs_to_them(tmp_path):
    """Residual, version held, memory and record are those after the newest update, to the bit."""
    history, path, rng = History(SMALL), tmp_path / "outbox.db", random.Random(7)
    for turn in range(50):
        hear, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                box = Outbox(path)
                while True:
                    os.write(tell, b"!")
                    history.goes_on(box)
            finally:
                os._exit(1)
        for _ in range(turn % 5):  # 0: perhaps while it opens
            os.read(hear, 1)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        os.close(hear)
        os.close(tell)
        box = Outbox(path)
        history.is_what_is_in(box)
        box.close()
    assert history.number > 50


def test_of_a_log_whose_end_never_reached_the_disk_whole_updates_are_left(tmp_path):
    """After a power cut: the file as it was, and the log up to any byte, or with noise from there."""
    history, path, rng = History(SMALL), tmp_path / "outbox.db", random.Random(7)
    box = Outbox(path)
    for _ in range(20):
        history.goes_on(box)
    log = path.with_name("outbox.db-wal").read_bytes()
    for turn in range(30):
        copy = tmp_path / f"{turn}.db"
        shutil.copy(path, copy)
        end = rng.randrange(len(log))
        noise = rng.randbytes(len(log) - end) if turn % 2 else b""
        copy.with_name(f"{turn}.db-wal").write_bytes(log[:end] + noise)
        again = Outbox(copy)
        History(SMALL).is_what_is_in(again)
        again.close()
    box.close()


def test_a_version_that_came_by_steps_is_kept_by_steps_until_the_whole_is_shorter(tmp_path):
    """600 values are 2,400 bytes; steps are added up to that, then one whole takes their place."""
    history, path = History(SMALL), tmp_path / "outbox.db"
    seen = set()
    for _ in range(40):
        box = Outbox(path)
        history.goes_on(box, num_waiting=0)
        trail = box.trail
        seen.add(trail.num_steps)
        assert trail.num_bytes <= 2_400
        box.close()
        box = Outbox(path)
        assert box.trail == trail
        kept = box.held(SMALL)
        np.testing.assert_array_equal(kept.vector, history.follower.held.vector)
        box.close()
        history.follower.held = kept  # as a vehicle goes on after its restart
    assert seen == set(range(max(seen) + 1))
    assert max(seen) > 5


def test_another_version_with_the_same_bits_is_known_by_its_name(tmp_path, make_update):
    """A server that counts on under another generation."""
    vector = np.float32([1, 2, 3])
    box = Outbox(tmp_path / "outbox.db")
    for sequence, generation in enumerate(("one", "two")):
        held = CurrentRelease(generation, 4 + sequence, digest(vector), vector)
        layout = Layout.flat(3)
        box.put(make_update(sequence=sequence, layout=layout.fingerprint), b"x", held=held)
    box.close()
    box = Outbox(tmp_path / "outbox.db")
    kept = box.held(Layout.flat(3))
    assert (kept.generation, kept.version) == ("two", 5)
    box.close()


def test_what_is_damaged_within_is_lost_by_itself(tmp_path, caplog):
    history, path = History(SMALL), tmp_path / "outbox.db"
    box = Outbox(path)
    for _ in range(3):
        history.goes_on(box)
    for damage in (b"", b"noise"):
        box.db.execute("UPDATE steps SET body = ? WHERE number = 1", (damage,))
        assert box.held(SMALL) is None
    box.db.execute("UPDATE residual SET packed = ?", (b"noise",))
    assert box.residual(SMALL.fingerprint) is None
    assert "is lost" in caplog.text
    box.db.execute("UPDATE state SET value = ?", (b"\x93noise",))
    box.close()
    box = Outbox(path)
    assert (box.memory(), box.outcomes, len(box)) == (Memory(), {}, 3)
    history.goes_on(box)
    assert box.memory().num_trained == 4
    box.close()


def test_ends_are_no_more_than_a_status_can_say(tmp_path, make_update):
    box = Outbox(tmp_path / "outbox.db")
    for sequence in range(MOST_ENDS + 5):
        box.put(make_update(boot="a", sequence=sequence), b"x")
        box.resolve("a", sequence, "refused", f"{sequence} {'x' * 100}"[:64])
    assert len(box.outcomes) == MOST_ENDS + 1
    assert box.outcomes["refused other"] == 5
    assert max(map(len, box.outcomes)) <= 64
    assert sum(box.outcomes.values()) == MOST_ENDS + 5
    box.close()


OLD_SCHEMA = """
CREATE TABLE produced (
    id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT, sequence INTEGER, lineage TEXT,
    base_version INTEGER, made_s REAL, num_bytes INTEGER, verdict TEXT, reason TEXT, frame BLOB,
    UNIQUE (boot, sequence));
CREATE INDEX waiting ON produced (id) WHERE verdict IS NULL;
CREATE TABLE ends (
    verdict TEXT, reason TEXT, number INTEGER, PRIMARY KEY (verdict, reason));
CREATE TABLE lived (one INTEGER PRIMARY KEY CHECK (one = 1), seconds REAL);
CREATE TABLE residual (
    one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, vector BLOB);
CREATE TABLE memory (one INTEGER PRIMARY KEY CHECK (one = 1), packed BLOB);
CREATE TABLE held (
    one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB, lineage TEXT, version INTEGER, sha256 BLOB,
    vector BLOB);
"""


def old_file(path: Path, residual: np.ndarray, held: np.ndarray) -> None:
    """As version 0.1.0's first outboxes were: one update waits, one was refused."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(OLD_SCHEMA)
        insert = "INSERT INTO produced VALUES (?, 'a', ?, 'one', 3, 5.0, 1340, ?, ?, ?)"
        db.execute(insert, (8, 0, "refused", "stale", None))
        db.execute(insert, (9, 1, None, None, bytes(1_340)))
        db.execute("INSERT INTO ends VALUES ('refused', 'stale', 1), ('accepted', '', 7)")
        db.execute("INSERT INTO lived VALUES (1, 105.0)")
        layout = Layout.flat(held.size).fingerprint
        db.execute("INSERT INTO residual VALUES (1, ?, ?)", (layout, residual.tobytes()))
        memory = msgspec.msgpack.encode(Memory(2, 12, [0.0]))
        db.execute("INSERT INTO memory VALUES (1, ?)", (memory,))
        about = (layout, digest(held), held.tobytes())
        db.execute("INSERT INTO held VALUES (1, ?, 'one', 3, ?, ?)", about)


def test_an_outbox_of_the_version_before_goes_on_with_all_that_it_has(tmp_path, make_update):
    path, model = tmp_path / "outbox.db", Layout.flat(2_000)
    residual, vector = (
        np.random.default_rng(n).normal(size=2_000).astype(np.float32) for n in (1, 2)
    )
    old_file(path, residual, vector)
    for _ in range(2):
        box = Outbox(path, now=lambda: 10.0)
        assert [(w.name, w.age_s, w.base_version) for w in box.waiting()] == [(("a", 1), 100.0, 3)]
        assert box.frame("a", 1) == bytes(1_340)
        assert box.outcomes == {"refused stale": 1, "accepted": 7}
        assert box.produced() == [
            Produced(8, "a", 0, "refused", "stale"),
            Produced(9, "a", 1, None, ""),
        ]
        np.testing.assert_array_equal(box.residual(model.fingerprint), residual)
        held = box.held(model)
        assert held is not None
        assert (held.generation, held.version) == ("one", 3)
        np.testing.assert_array_equal(held.vector, vector)
        assert box.memory() == Memory(2, 12, [0.0])
        assert box.db.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
        box.close()
    box = Outbox(path, Config(max_record=0))
    box.put(make_update(boot="b"), b"x")
    box.resolve("b", 0, "accepted")
    box.resolve("a", 1, "accepted")
    assert (box.outcomes["accepted"], box.produced()) == (9, [])
    box.put(make_update(boot="b", sequence=1), b"x")
    assert [p.id for p in box.produced()] == [11]
    box.close()


def test_an_outbox_of_a_later_version_is_left_as_it_is_and_said_so(tmp_path):
    path = tmp_path / "outbox.db"
    Outbox(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    content = path.read_bytes()
    with pytest.raises(OutboxError, match=f"format {FORMAT + 1}, .* none above {FORMAT}"):
        Outbox(path)
    assert path.read_bytes() == content


def test_only_a_watched_one_is_read_by_others_meanwhile(tmp_path, make_update):
    for watched in (True, False):
        path = tmp_path / f"{watched}.db"
        box = Outbox(path, watched=watched)
        box.put(make_update(), b"x")
        with closing(sqlite3.connect(path, timeout=0)) as other:
            if watched:
                assert other.execute("SELECT COUNT(*) FROM produced").fetchone() == (1,)
            else:
                with pytest.raises(sqlite3.OperationalError):
                    other.execute("SELECT COUNT(*) FROM produced")
        box.close()
