"""The outbox: kept until the receipt, in order, over a restart."""

import sqlite3

import numpy as np
import pytest

from vehicle_agent.outbox import Outbox, Waiting

pytestmark = pytest.mark.unit


def test_keeps_order_and_survives_reopening(tmp_path):
    box = Outbox(tmp_path / "deep" / "outbox.db")
    box.put("a", 0, b"x")
    box.put("a", 1, b"y")
    box.close()
    box = Outbox(tmp_path / "deep" / "outbox.db")
    box.put("b", 0, b"z")
    assert box.waiting() == [Waiting("a", 0, b"x"), Waiting("a", 1, b"y"), Waiting("b", 0, b"z")]
    box.close()


def test_forgets_once(tmp_path):
    box = Outbox(tmp_path / "outbox.db")
    box.put("a", 0, b"x")
    assert box.forget("a", 0)
    assert not box.forget("a", 0)
    assert len(box) == 0
    box.close()


def test_residual_is_that_of_the_newest_update_over_a_restart(tmp_path):
    box = Outbox(tmp_path / "outbox.db")
    assert box.residual(b"L") is None
    box.put("a", 0, b"x", layout=b"L", residual=np.ones(3, np.float32))
    box.put("a", 1, b"y", layout=b"L", residual=np.full(3, 0.1, np.float32))
    box.close()
    box = Outbox(tmp_path / "outbox.db")
    np.testing.assert_array_equal(box.residual(b"L"), np.full(3, 0.1, np.float32))
    assert box.residual(b"another layout") is None
    box.close()


def test_update_that_is_not_kept_leaves_the_residual_as_it_was(tmp_path):
    box = Outbox(tmp_path / "outbox.db")
    box.put("a", 0, b"x", layout=b"L", residual=np.ones(3, np.float32))
    with pytest.raises(sqlite3.IntegrityError):
        box.put("a", 0, b"again", layout=b"L", residual=np.zeros(3, np.float32))
    assert not box.forget("a", 7, layout=b"L", residual=np.zeros(3, np.float32))
    np.testing.assert_array_equal(box.residual(b"L"), np.ones(3, np.float32))
    box.close()
