"""Settings: files over files, overrides, and errors that name the field."""

from pathlib import Path

import pytest
import yaml

from actors.config import ServerConfig
from fleetfl.config import ConfigError, load, read_with, validate
from sim.fleet.scenario import VirtualConfig
from sim.live.config import SimConfig
from sim.settings import CrewConfig, SceneConfig
from vehicle_agent.config import VehicleConfig

pytestmark = pytest.mark.unit
CONFIGS = Path(__file__).parents[2] / "configs"
BASE = {
    "fleet": "f",
    "model": {"classes": ["a", "b"]},
    "transport": {"kind": "mqtt", "port": 1884},
    "server": {"state": "s", "aggregator": {"kind": "fedbuff", "goal": 3}},
    "vehicle": {"name": "v", "state": "s", "sensor": {"kind": "labelled_npz", "path": "x.npz"}},
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(BASE))
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_file_is_valid(path):
    tree = read_with(path, [])
    tree.setdefault("transport", {"kind": "mqtt"})
    sensor = {"kind": "labelled_npz", "path": "x.npz"}
    tree["vehicle"] = {**tree.get("vehicle", {}), "sensor": sensor, "name": "v", "state": "s"}
    tree["server"] = {**tree.get("server", {}), "state": "s"}
    validate(tree, "server", ServerConfig, "file")
    validate(tree, "vehicle", VehicleConfig, "file")
    if "sim" in tree:
        is_virtual = tree["sim"].get("clock") == "virtual"
        schema = VirtualConfig if is_virtual else SimConfig
        schema = {"compare": SceneConfig, "bench": CrewConfig}.get(_command(tree), schema)
        validate(tree, "sim", schema, "file")


def _command(tree):
    return next((part for part in ("compare", "bench") if part in tree), "sim")


def test_a_process_reads_its_own_part_only(file):
    assert load(file, "server", ServerConfig).aggregator.goal == 3
    assert load(file, "vehicle", VehicleConfig).transport.port == 1884


def test_override_reaches_a_nested_setting(file):
    overrides = ["server.aggregator.goal=7", "server.aggregator.staleness={kind: constant}"]
    config = load(file, "server", ServerConfig, overrides)
    assert config.aggregator.goal == 7
    assert config.aggregator.staleness.weight(9) == 1.0


def test_extends_lays_one_file_over_another(file):
    child = file.with_name("child.yaml")
    child.write_text("extends: fleet.yaml\nserver: {max_staleness: 4}\n")
    config = load(child, "server", ServerConfig)
    assert (config.max_staleness, config.aggregator.goal) == (4, 3)


def test_new_kind_drops_the_old_settings(file):
    config = load(file, "vehicle", VehicleConfig, ["vehicle.sensor={kind: image_folder, root: d}"])
    assert config.sensor.kind_name == "image_folder"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("server.aggregator.gaol=3", r"server\.aggregator\.gaol"),
        ("server.aggregator.goal=0", r"server\.aggregator\.goal: .*\(got 0\)"),
        ("server.aggregator.kind=nope", "fedbuff"),
        ("server.aggregator.kind=", "needs `kind`"),
        ("server.http.port=http", r"server\.http\.port: .*\(got 'http'\)"),
        ("model.adapter={kind: lora, rank: 0}", r"model\.adapter\.rank"),
        ("model.classes=[a, a]", r"model\.classes: .*differ"),
        ("modle.classes=1", "modle: there is no such setting; did you mean `model`"),
        ("server.optimiser.kind=sgd", r"server\.optimiser: .*did you mean `optimizer`"),
        ("server.http.prot=1", r"server\.http\.prot: .*did you mean `port`"),
        ("transport.pasword=x", r"transport\.pasword: .*did you mean `password`"),
        ("server.qqq=1", r"server\.qqq: there is no such setting$"),
        ("server=3", "server: got 3"),
        ("no-equals", "expected NAME"),
        ("server.x=[", "not YAML"),
    ],
)
def test_error_names_the_field(file, override, says):
    with pytest.raises(ConfigError, match=says):
        load(file, "server", ServerConfig, [override])


@pytest.mark.parametrize(
    ("text", "says"), [("[1]", "list"), ("a: [", "not YAML"), ("extends: gone.yaml", "gone.yaml")]
)
def test_unusable_files_are_named(tmp_path, text, says):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load(path, "server", ServerConfig)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml", "server", ServerConfig)
