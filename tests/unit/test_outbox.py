"""The outbox: kept until the receipt, in order, over a restart."""

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
