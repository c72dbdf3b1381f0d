"""What docs/deployment/brokers.md says is what is there: settings are read, and rules cover the topics."""

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fleetfl.config import Section, validate
from fleetfl.config.settings_file import parsed
from fleetfl.fleet_config import AnyTransport
from fleetfl.protocol import topics
from fleetfl.transport._filters import matches
from fleetfl.transport.mqtt import Config

pytestmark = pytest.mark.unit
PAGE = (Path(__file__).parents[2] / "docs" / "deployment" / "brokers.md").read_text()
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


class Shared(Section):
    fleet: str
    transport: AnyTransport
    num_partitions: int = 1


@pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda text: text.split("host: ")[1][-30:].split()[0]
)
def test_every_recipe_is_settings_that_are_read(recipe):
    shared = validate(parsed(recipe, "recipe"), "server", Shared, "docs/deployment/brokers.md")
    assert isinstance(shared.transport, Config)
    assert shared.transport.tls


def test_there_is_one_for_each_cloud():
    text = "".join(RECIPES)
    assert len(RECIPES) >= 3
    for cloud in ("amazonaws.com", "emqxsl.com", "hivemq.cloud"):
        assert cloud in text


def test_the_rules_for_mosquitto_cover_what_is_read_and_written():
    rules = [
        line.split(" ", 2) for line in PAGE.splitlines() if line.startswith(("topic ", "pattern "))
    ]
    vehicle = [
        (access, rule.replace("%u", "v1")) for kind, access, rule in rules if kind == "pattern"
    ]

    def may(access, topic):
        return any(access in given and matches(rule, topic) for given, rule in vehicle)

    fleet = "depot-7"
    for topic in (topics.update(fleet, "v1", 4), topics.status(fleet, "v1", 4)):
        assert may("write", topic)
        assert topic.count("/") <= 7
    for topic in (
        topics.receipt(fleet, "v1"),
        topics.release(fleet),
        topics.release_slot(fleet, 3, 1),
        topics.snapshot(fleet, 2),
    ):
        assert may("read", topic)
        assert not may("write", topic)
    assert not may("write", topics.update(fleet, "v2", 4))
    assert not may("read", topics.receipt(fleet, "v2"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpn": ["x"]},
        {"tls": True, "alpn": [""]},
        {"tls": True, "alpn": ["a b"]},
        {"websocket": {"path": "mqtt"}},
        {"websocket": {"path": "/a\r\nX: y"}},
        {"websocket": {"path": "/ä"}},
        {"websocket": {"headers": {"X": "a\r\nY: b"}}},
        {"websocket": {"headers": {"X\n": "a"}}},
        {"websocket": {"headers": {"X: y": "a"}}},
        {"client_id_prefix": "a:b"},
        {"client_id_prefix": "a\n"},
        {"client_id_prefix": "a/b"},
    ],
)
def test_settings_that_would_change_a_request_are_refused(wrong):
    with pytest.raises(ValueError, match="validation error"):
        TypeAdapter(Config).validate_python(wrong)


def test_no_text_of_the_settings_shows_a_header_or_password():
    config = Config(password="s3cret", username="u", websocket={"headers": {"X": "t0ken"}})  # pyright: ignore
    for text in (repr(config), str(config), config.model_dump_json(), str(config.model_dump())):
        assert "s3cret" not in text
        assert "t0ken" not in text
