"""Fixtures that several folders of tests share."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetfl.events.event_log import EventLog
from fleetfl.events.schema import require_declared
from fleetfl.models import ModelConfig
from fleetfl.protocol.messages import Update
from fleetfl.vectors import Layout
from sim import world

# A shell that runs us in the background has Ctrl-C ignored, and all that we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every log of events in this process takes only what is declared.
EventLog.check = require_declared

ORDER = ("cluster", "slow", "broker", "browser", "contracts", "unit")
"""Marks of the tests that begin first: whoever works longest must not begin last."""

ONE_SERVER = {
    "tests/cluster/test_server.py": "server",
    "tests/cluster/test_vehicle.py": "server",
    "tests/cluster/test_recovery.py": "lives",
    "tests/slow/test_site.py": "site",  # built once
}
"""Files whose tests look at the same server, and so run in one process one after the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return min(ORDER.index(mark.name) for mark in item.iter_markers() if mark.name in ORDER)

    items.sort(key=rank)
    for item in items:
        file = item.nodeid.partition("::")[0]
        if "tests/cluster/" in file and "server" in getattr(item, "fixturenames", ()):
            assert file in ONE_SERVER, f"ONE_SERVER has to name {file}, or it starts another one"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 3`: each test to whoever is free, but those of ONE_SERVER together.

    Not by the mark `xdist_group`: pytest-xdist 3.8 does not see it under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Stacked(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return ONE_SERVER.get(nodeid.partition("::")[0], nodeid)

    return Stacked(config, log)


DATA = Path(os.environ.get("FLEETFL_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def any_event(monkeypatch):
    """Logs take events of any name: for tests of the log itself."""
    monkeypatch.setattr(EventLog, "check", None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real photographs and a real checkpoint, which not every machine has."""
    if not DATA.is_dir():
        pytest.skip(f"no data in {DATA}: set FLEETFL_DATA_DIR")
    return DATA


@pytest.fixture(scope="session")
def model_config() -> ModelConfig:
    return ModelConfig(classes=world.CLASSES, precision="float32")


@pytest.fixture
def make_update():
    """An update of 5 values; keywords replace its fields, `delta` its body."""
    from fleetfl.codecs import decoder

    def make(delta=None, **fields) -> Update:
        codec = fields.pop("codec", "float32")
        delta = np.ones(5, np.float32) if delta is None else np.asarray(delta, np.float32)
        body = fields.pop("body", None)
        defaults = {
            "vehicle": "v1",
            "boot": "b",
            "sequence": 0,
            "base_version": 0,
            "layout": bytes(8),
            "num_examples": 8,
            "local_steps": 1,
            "captured_from": 1_700_000_000,
            "captured_to": 1_700_000_060,
            "loss": 0.5,
        }
        body = decoder(codec, Layout.flat(delta.size)).encode(delta) if body is None else body
        return Update(**{**defaults, **fields}, codec=codec, body=body)

    return make
