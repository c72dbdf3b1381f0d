"""One way leads from settings to a coordinator, and every setting changes it on every path that takes it."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.aggregator import AggregatorActor
from actors.config import ServerConfig
from fleetfl.codecs.int8 import Config as Int8
from fleetfl.coordination.coordinator import Coordinator
from fleetfl.coordination.settings import CoordinatorSettings
from fleetfl.registry.adapter_file import write_adapter
from fleetfl.vectors import Layout
from sim.bench.config import CandidateConfig
from sim.bench.rate_accuracy import coordinator_of as of_bench
from sim.chaos.replay import coordinator_of as of_replay
from sim.fleet.server import coordinator_of as of_virtual_fleet
from tests.built import digest_of

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
LAYOUT = Layout((("adapter", (5,)), ("head.bias", (3,)), ("head.weight", (3, 2))))
START = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)
OTHERS: dict[str, Any] = {
    "aggregator": {"kind": "fedavg"},
    "optimizer": {"learning_rate": 0.5},
    "release": {"kind": "float32"},
    "closed_form": {"vehicles": 3},
    "clip": None,
    "max_staleness": 7,
}
"""Another valid value of each setting of a coordinator."""
BY_CHANCE = frozenset({"generation", "former"})


def server(folder: Path, **settings: Any) -> ServerConfig:
    initial = folder / "zero.safetensors"
    write_adapter(initial, LAYOUT, START, version=0)
    about = {"fleet": "f", "model": {"classes": ["a", "b"]}, "transport": {"kind": "memory"}}
    return ServerConfig.model_validate(
        {**about, "state": folder / "state", "initial": initial, **settings}
    )


def of_server(config: ServerConfig) -> Coordinator:
    return AggregatorActor(config).coordinator


def of_fleet(config: ServerConfig) -> Coordinator:
    return of_virtual_fleet(config, START, LAYOUT)


def of_codecs(config: ServerConfig) -> Coordinator:
    """The bench sets the codec of releases: it is what is compared."""
    candidate = CandidateConfig(name="one", codec=Int8(), release=config.release)
    return of_bench(config, candidate, START, LAYOUT)


def of_chaos(config: ServerConfig) -> Coordinator:
    return of_replay(config, generation="1-a")


PATHS = (of_server, of_fleet, of_codecs, of_chaos)


def test_another_value_of_each_setting_is_tried() -> None:
    assert set(OTHERS) == set(CoordinatorSettings.model_fields)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
@pytest.mark.parametrize("name", OTHERS)
def test_each_setting_changes_the_coordinator_on_every_path(
    tmp_path: Path, path: Callable[[ServerConfig], Coordinator], name: str
) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    plain = digest_of(path(server(tmp_path / "a")), passing_over=BY_CHANCE)
    again = digest_of(path(server(tmp_path / "b")), passing_over=BY_CHANCE)
    other = path(server(tmp_path / "c", **{name: OTHERS[name]}))
    assert plain == again != digest_of(other, passing_over=BY_CHANCE)


def test_all_paths_come_to_one_coordinator(tmp_path: Path) -> None:
    made = []
    for path in PATHS:
        folder = tmp_path / path.__name__
        folder.mkdir()
        made.append(digest_of(path(server(folder, **OTHERS)), passing_over=BY_CHANCE))
    assert len(set(made)) == 1


def test_nobody_else_wires_a_coordinator() -> None:
    """Whoever has settings uses `Coordinator.from_settings`, which forgets none of them."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("fleetfl", "actors", "vehicle_agent", "sim", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Coordinator"
    ]
    assert calls == []
