"""What every outbox promises: the same tests on the one on disk and on the one in memory."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetfl.releases.versions import CurrentRelease
from fleetfl.vectors import Layout, digest
from sim.fleet.outbox import MemoryOutbox
from vehicle_agent.outbox import Config, Memory, Newest, Outbox

pytestmark = pytest.mark.contracts
MODEL, OTHER_MODEL = Layout.flat(3), Layout.flat(4)
LAYOUT, OTHER = MODEL.fingerprint, OTHER_MODEL.fingerprint
Put = Callable[..., None]


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["disk", "memory"])
def box(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    bounds = Config(max_age_s=100, max_updates=3)
    on_disk = request.param == "disk"
    path = tmp_path / "outbox.db"
    made = Outbox(path, bounds, now=clock) if on_disk else MemoryOutbox(bounds, now=clock)
    yield made
    made.close()


@pytest.fixture
def put(box: Outbox, make_update: Any) -> Put:
    def put(boot: str, sequence: int, frame: bytes = b"x", *, base: int = 0, **keep: Any) -> None:
        fields = {"boot": boot, "sequence": sequence, "base_version": base, "layout": LAYOUT}
        box.put(make_update(**fields, generation="one"), frame, **keep)

    return put


def names(box: Outbox) -> list[tuple[str, int]]:
    return [item.name for item in box.waiting()]


def test_keeps_order(box: Outbox, put: Put) -> None:
    put("a", 1, b"x")
    put("a", 0, b"y")
    put("b", 0, b"zz")
    assert names(box) == [("a", 1), ("a", 0), ("b", 0)]
    assert box.waiting()[2].num_bytes == 2
    assert (len(box), box.frame("a", 0), box.frame("c", 0)) == (3, b"y", None)


def test_an_end_counts_once(box: Outbox, put: Put) -> None:
    put("a", 0)
    put("a", 1)
    assert box.resolve("a", 0, "accepted")
    assert not box.resolve("a", 0, "duplicate")
    assert box.resolve("a", 1, "expired", "age")
    assert (len(box), box.frame("a", 0)) == (0, None)
    assert box.outcomes == {"accepted": 1, "expired age": 1}


def test_what_goes_is_known_by_age_staleness_and_count(box: Outbox, put: Put, clock: Clock) -> None:
    """Limits: 100 s, 3 updates, 50 versions behind 60. The last 4 have only their number against them."""
    put("a", 0, base=60)
    clock.now_s += 101
    put("a", 1, base=9)
    for sequence in (2, 3, 4, 5):
        put("a", sequence, base=10)
    gone = [(item.sequence, why) for item, why in box.expired_updates(Newest("one", 60, 50))]
    assert gone == [(0, "age"), (1, "stale"), (2, "count")]


def test_residual_is_that_of_the_newest_change_and_of_one_layout(box: Outbox, put: Put) -> None:
    assert box.residual(LAYOUT) is None
    put("a", 0, residual=np.ones(3, np.float32))
    put("a", 1, residual=np.full(3, 0.1, np.float32))
    np.testing.assert_array_equal(box.residual(LAYOUT), np.full(3, 0.1, np.float32))
    assert box.residual(OTHER) is None
    box.resolve("a", 1, "refused", layout=LAYOUT, residual=np.full(3, 7, np.float32))
    np.testing.assert_array_equal(box.residual(LAYOUT), np.full(3, 7, np.float32))
    box.resolve("a", 0, "accepted")
    np.testing.assert_array_equal(box.residual(LAYOUT), np.full(3, 7, np.float32))


def test_memory_and_the_version_held_are_those_of_the_newest_update(box: Outbox, put: Put) -> None:
    assert (box.memory(), box.held(MODEL)) == (Memory(), None)
    vector = np.float32([1, 2, 3])
    put("a", 0, memory=Memory(1, 6, [1.0]), held=CurrentRelease("one", 7, digest(vector), vector))
    put("a", 1, memory=Memory(2, 12, [2.0]))
    held = box.held(MODEL)
    assert held is not None
    assert (held.version, held.vector.tolist()) == (7, [1, 2, 3])
    assert (box.memory(), box.held(OTHER_MODEL)) == (Memory(2, 12, [2.0]), None)


def test_what_is_not_kept_or_not_there_leaves_the_residual_as_it_was(box: Outbox, put: Put) -> None:
    put("a", 0, residual=np.ones(3, np.float32))
    with pytest.raises(sqlite3.IntegrityError):
        put("a", 0, b"again", residual=np.zeros(3, np.float32))
    zeros = np.zeros(3, np.float32)
    assert not box.resolve("a", 7, "refused", layout=LAYOUT, residual=zeros)
    np.testing.assert_array_equal(box.residual(LAYOUT), np.ones(3, np.float32))
    assert box.frame("a", 0) == b"x"
