"""Fixtures that several folders of tests share."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from fleetfl.messages import Update
from fleetfl.models import ModelConfig
from fleetfl.vectors import Layout
from sim import world

# A shell that runs us in the background has Ctrl-C ignored, and all that we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ORDER = ("slow", "cluster", "broker", "browser", "contracts", "unit")
"""Marks of the tests that begin first: whoever works longest must not begin last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 3`: one server for all tests that look at it, and the longest tests first."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("server"))
    items.sort(
        key=lambda item: min(ORDER.index(m.name) for m in item.iter_markers() if m.name in ORDER)
    )


DATA = Path(os.environ.get("FLEETFL_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))


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
