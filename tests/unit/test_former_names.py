"""Settings and kinds that were renamed are read under their former names, with a warning."""

import importlib
import pkgutil
from typing import ClassVar

import pytest

from fleetfl.config import ConfigError, Section, validate
from fleetfl.plugins import available
from sim.fleet import executors
from sim.fleet.scenario import scenario_of
from vehicle_agent.training import Config as TrainerConfig

pytestmark = pytest.mark.unit


class Settings(Section):
    former_names: ClassVar = {"old": "new"}

    new: int = 1


def test_a_former_name_is_read_and_the_new_one_named(caplog):
    assert validate({"server": {"old": 5}}, "server", Settings, "x.yaml").new == 5
    assert "`old` is called `new` now" in caplog.text


def test_both_names_at_once_are_an_error_that_names_both():
    with pytest.raises(ConfigError, match="`old` is called `new` now, and both are given"):
        validate({"server": {"old": 5, "new": 6}}, "server", Settings, "x.yaml")


def test_a_subclass_reads_former_names_too(caplog):
    assert TrainerConfig.model_validate({"patches_kept": 0.5}).patch_keep_rate == 0.5
    assert "patch_keep_rate" in caplog.text


def test_a_former_kind_is_read_under_a_former_setting(caplog):
    tree = {
        "fleet": "f",
        "model": {"classes": ["a", "b"]},
        "sim": {
            "clock": "virtual",
            "learning": {"kind": "synthetic"},
            "trainings": {"kind": "in_turn"},
        },
    }
    assert scenario_of(tree, "x.yaml").sim.executor.kind_name == "serial"
    assert "`trainings` is called `executor` now" in caplog.text
    assert "`in_turn` is called `serial` now" in caplog.text


def test_former_names_lead_to_settings_and_kinds_that_exist():
    for package in ("fleetfl", "actors", "vehicle_agent", "sim"):
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            if module.name.endswith("__main__"):
                continue
            importlib.import_module(module.name)
    known = [each for each in _subclasses(Section) if each.__module__ != __name__]
    assert len(known) > 60
    for each in known:
        for old, new in each.former_names.items():
            assert new in each.model_fields, (each, old)
            assert old not in each.model_fields
    assert {*executors.FORMER_KINDS.values()} <= {*available("sim.fleet.executors")}


def _subclasses(of: type[Section]) -> list[type[Section]]:
    return [each for sub in of.__subclasses__() for each in (sub, *_subclasses(sub))]
