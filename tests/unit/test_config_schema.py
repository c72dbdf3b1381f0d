"""What `fleetfl config` says of settings is what the settings are."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

import fleetfl.cli
from fleetfl.cli import main
from fleetfl.config import PARTS, ConfigError, read
from fleetfl.reference.explain import Setting, fields_of, find, paths
from fleetfl.reference.page import reference
from fleetfl.reference.parts import SHARED, part_names, schema_of, schema_of_file

pytestmark = pytest.mark.unit
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def of_file():
    return jsonschema.Draft202012Validator(schema_of_file())


@pytest.fixture(scope="module")
def server():
    return schema_of("server")


def test_every_part_of_a_file_has_a_schema():
    assert {name.split("-")[0] for name in part_names()} == {*PARTS, SHARED}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_the_schema_admits_every_file_that_we_ship(file, of_file):
    assert [error.message for error in of_file.iter_errors(read(file))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": {"agregator": {"kind": "fedbuff"}}},
        {"server": {"aggregator": {"kind": "fedbuff", "goal": 0}}},
        {"server": {"aggregator": {"goal": 4}}},  # no kind
        {"server": {"aggregator": {"kind": "nonesuch"}}},
        {"vehicle": {"error_feedback": 1.5}},
        {"model": {"classes": ["one"]}},
        {"fleet": "no spaces"},
        {"sim": {"clock": "virtual", "links": [{"kind": "pigeon"}]}},
        {"nonesuch": {}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_settings_refuse(wrong, of_file):
    assert not of_file.is_valid(wrong)


def test_the_schema_admits_a_component_of_another_package(of_file):
    assert of_file.is_valid({"server": {"aggregator": {"kind": "acme_fl.trimmed", "share": 0.1}}})


def test_a_setting_is_told_with_type_default_range_and_meaning(server):
    goal = find(server, ["aggregator", "fedavg", "goal"], "server")
    assert isinstance(goal, Setting)
    assert (goal.type, goal.default, goal.range) == ("integer", "10", "≥ 1")
    assert "updates" in goal.meaning.lower()


def test_without_a_kind_the_default_kinds_fields_are_meant(server):
    """FedBuff's goal is 10, accord's, which comes first in the alphabet, 5."""
    found = find(server, ["aggregator", "goal"], "server")
    assert found is not None
    assert found.default == "10"


def test_a_setting_that_has_to_be_set_says_so(server):
    state = find(server, ["state"], "server")
    assert state is not None
    assert (state.type, state.default) == ("path", None)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("server.agregator", "server.aggregator"),
        ("server.aggregator.fedbuff.goals", "server.aggregator.goal"),
        ("server.goal", ".goal"),
        ("servre.aggregator", "server"),
        ("vehicle.outbox.max_age", "vehicle.outbox.max_age_s"),
    ],
)
def test_a_misspelt_path_is_one_line_with_the_nearest_names(wrong, near, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["config", "explain", wrong])
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert near in told
    assert told.count("\n") == 1


def test_explain_shows_the_kinds_and_the_default_ones_fields():
    shown = CliRunner().invoke(fleetfl.cli.app, ["config", "explain", "server.aggregator"])
    assert shown.exit_code == 0
    for word in ("fedbuff (default)", "accord", "fedasync", "goal", "staleness"):
        assert word in shown.output


def test_shared_settings_need_no_part():
    shown = CliRunner().invoke(fleetfl.cli.app, ["config", "explain", "transport.mqtt.port"])
    assert "default 1883" in shown.output


def test_schema_is_json_of_one_part_or_of_a_whole_file():
    one = CliRunner().invoke(fleetfl.cli.app, ["config", "schema", "vehicle"])
    assert "outbox" in json.loads(one.output)["properties"]
    whole = CliRunner().invoke(fleetfl.cli.app, ["config", "schema"])
    assert {*PARTS} < json.loads(whole.output)["properties"].keys()


@pytest.mark.parametrize("part", part_names())
def test_every_setting_says_what_it_means(part):
    root = schema_of(part)
    silent = []
    for path in paths(root, root, part):
        setting = find(root, path.split(".")[path.count(".", 0, len(part)) + 1 :], part)
        assert setting is not None
        if not setting.meaning:
            silent.append(path)
    assert silent == []


def test_the_reference_has_every_setting_and_no_dead_link():
    page = reference()
    anchors = set(re.findall(r"\{ #([^ ]+) \}", page))
    assert {*re.findall(r"\]\(#([^)]+)\)", page)} <= anchors
    for part in part_names():
        schema = schema_of(part)
        for setting in fields_of(schema, schema, part):
            assert f"`{setting.path.rsplit('.', 1)[1]}`" in page


def test_an_unknown_part_names_the_nearest():
    with pytest.raises(ConfigError, match="server"):
        schema_of("sever")
