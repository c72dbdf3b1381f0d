"""What every outbox promises: the same tests on the one on disk and on the one in memory."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim.fleet.outbox import MemoryOutbox
from vehicle_agent.outbox import Outbox, Waiting

pytestmark = pytest.mark.contracts


@pytest.fixture(params=["disk", "memory"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "outbox.db") if request.param == "disk" else MemoryOutbox()
    yield made
    made.close()


def test_keeps_order(box: Outbox) -> None:
    box.put("a", 1, b"x")
    box.put("a", 0, b"y")
    box.put("b", 0, b"z")
    assert box.waiting() == [Waiting("a", 1, b"x"), Waiting("a", 0, b"y"), Waiting("b", 0, b"z")]
    assert (len(box), box.frame("a", 0), box.frame("c", 0)) == (3, b"y", None)


def test_forgets_once(box: Outbox) -> None:
    box.put("a", 0, b"x")
    assert box.forget("a", 0)
    assert not box.forget("a", 0)
    assert len(box) == 0
    assert box.frame("a", 0) is None


def test_residual_is_that_of_the_newest_change_and_of_one_layout(box: Outbox) -> None:
    assert box.residual(b"L") is None
    box.put("a", 0, b"x", layout=b"L", residual=np.ones(3, np.float32))
    box.put("a", 1, b"y", layout=b"L", residual=np.full(3, 0.1, np.float32))
    np.testing.assert_array_equal(box.residual(b"L"), np.full(3, 0.1, np.float32))
    assert box.residual(b"another layout") is None
    box.forget("a", 1, layout=b"L", residual=np.full(3, 7, np.float32))
    np.testing.assert_array_equal(box.residual(b"L"), np.full(3, 7, np.float32))
    box.forget("a", 0)
    np.testing.assert_array_equal(box.residual(b"L"), np.full(3, 7, np.float32))


def test_what_is_not_kept_or_not_there_leaves_the_residual_as_it_was(box: Outbox) -> None:
    box.put("a", 0, b"x", layout=b"L", residual=np.ones(3, np.float32))
    with pytest.raises(sqlite3.IntegrityError):
        box.put("a", 0, b"again", layout=b"L", residual=np.zeros(3, np.float32))
    assert not box.forget("a", 7, layout=b"L", residual=np.zeros(3, np.float32))
    np.testing.assert_array_equal(box.residual(b"L"), np.ones(3, np.float32))
    assert box.frame("a", 0) == b"x"
