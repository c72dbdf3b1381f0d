"""The examples in docs/extending are components: each is imported, chosen by its name, and used."""

import importlib
import re
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from fleetfl.models import ModelConfig
from fleetfl.plugins import PluginConfig
from fleetfl.reference.parts import schema_of_file
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
FOLDER = Path(__file__).parents[2] / "docs" / "extending"
PAGES = sorted(page.stem for page in FOLDER.glob("*.md") if page.stem != "index")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (FOLDER / f"{page}.md").read_text(), re.DOTALL)


@pytest.fixture
def config_of(tmp_path, monkeypatch):
    """The `Config` of a page's example, imported as `acme_fl.NAME` as its YAML says."""
    package = tmp_path / "acme_fl"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def imported(page: str) -> type[PluginConfig]:
        (code,) = blocks(page, "python")
        name = re.search(r'kind: Literal\["(\w+)"\]', code)
        assert name is not None
        (package / f"{name[1]}.py").write_text(code)
        return importlib.import_module(f"acme_fl.{name[1]}").Config

    yield imported
    for name in [each for each in sys.modules if each.split(".")[0] == "acme_fl"]:
        del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_an_example_is_a_component_of_its_kind(page, config_of):
    """What it defines is what its seam asks for, but for helpers of its own."""
    config = config_of(page)
    assert issubclass(config, PluginConfig)
    base = config.__mro__[1]
    for name in vars(config):
        if not name.startswith("_") and callable(getattr(config, name)):
            assert hasattr(base, name), f"{base.__name__} knows no {name}"


@pytest.mark.parametrize("page", PAGES)
def test_the_page_names_files_that_are_there(page):
    text = (FOLDER / f"{page}.md").read_text()
    for path in re.findall(r"`((?:tests|fleetfl|sim|vehicle_agent)/[\w/.]+)`", text):
        assert (FOLDER.parents[1] / path).exists() or path.endswith("/float16.py"), path


def test_the_yaml_of_each_page_names_its_example_and_is_a_file_of_settings():
    schema = jsonschema.Draft202012Validator(schema_of_file())
    for page in PAGES:
        for text in blocks(page, "yaml"):
            (code,) = blocks(page, "python")
            kind = re.search(r"acme_fl\.(\w+)", text)
            assert kind is not None
            assert f'Literal["{kind[1]}"]' in code
            assert list(schema.iter_errors(yaml.safe_load(text))) == []


def test_the_index_names_every_page_and_package():
    text = (FOLDER / "index.md").read_text()
    assert {*re.findall(r"\]\((\w[\w-]*)\.md\)", text)} == {*PAGES}
    for package in re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE):
        importlib.import_module(package)


def test_the_trimmed_mean_leaves_out_the_ends(config_of):
    """Of -9, 1, 2, 3, 100 without one at either end: (1 + 2 + 3) / 3 = 2."""
    aggregator = config_of("aggregator")(goal=5, trim=1).build(1)
    steps = [
        aggregator.add(np.array([value], np.float32), vehicle="v", num_examples=1, staleness=0)
        for value in (3, 100, 1, -9, 2)
    ]
    assert steps[:4] == [None] * 4
    assert steps[4].change == [2.0]


def test_the_half_life_halves(config_of):
    rule = config_of("staleness")(versions=5)
    assert [rule.weight(n) for n in (0, 5, 10)] == [1, 0.5, 0.25]


def test_the_codec_keeps_what_it_promises(config_of):
    vector = np.random.default_rng(0).normal(size=50).astype(np.float32)
    config = config_of("codec")()
    codec = config.build(Layout.flat(50))
    assert len(codec.encode(vector)) == 100
    error = np.abs(codec.decode(codec.encode(vector)) - vector).max() / np.abs(vector).max()
    assert error <= config.fidelity.error


def test_the_optimizer_moves_by_its_rate(config_of):
    from fleetfl.aggregators import Step

    moved = config_of("server-optimizer")(learning_rate=0.5).build(2)
    step = Step(np.array([3, -4], np.float32), (0,))
    assert moved.apply(np.zeros(2, np.float32), step).tolist() == [0.5, -0.5]


@pytest.mark.parametrize(("page", "targets"), [("backbone", ["4"]), ("adapter", None)])
def test_a_model_is_built_from_the_example(page, targets, config_of):
    kind = config_of(page).__module__
    tree: dict = {page: {"kind": kind}, "classes": ["car", "truck"]}
    if targets:
        tree["adapter"] = {"kind": "lora", "targets": targets}
    model = ModelConfig.model_validate(tree).build(seed=0, threads=1)
    pictures = np.zeros((2, model.image_size, model.image_size, 3), np.uint8)
    assert np.isfinite(model.predictions(pictures)).all()
    assert model.layout.size > 2


def test_the_sensor_gives_frames_as_training_takes_them(config_of):
    from vehicle_agent.sensors import checked, opened

    frames = checked(opened(config_of("sensor")(), ("car", "truck"), num_read=0).read(4))
    assert frames.images.shape == (4, 64, 64, 3)


def test_the_data_set_gives_each_vehicle_a_sensor(config_of, tmp_path):
    from sim.datasets import Weather

    dataset = config_of("dataset")()
    weathers = [Weather(condition="fog")] * 3
    assert len(dataset.sensors(weathers, tmp_path / "frames", seed=0)) == 3
    assert len(dataset.held_out(weathers, seed=0).labels) == 200


def test_the_partition_and_the_days_are_what_they_say(config_of):
    shares = config_of("partition")().shares(4, 2, seed=0)
    assert shares.sum(1).tolist() == [1.0] * 4
    windows = config_of("availability")().windows(0)
    assert [next(windows), next(windows)] == [(0.0, 86_400.0), (172_800.0, 259_200.0)]
