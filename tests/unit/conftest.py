"""Fixtures of the tests without a broker of their own."""

import pytest

from vehicle_agent.outbox import Outbox


@pytest.fixture
def outbox(tmp_path):
    """An empty one, on disk."""
    box = Outbox(tmp_path / "outbox.db")
    yield box
    box.close()
