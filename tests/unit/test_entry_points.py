"""Commands are found by entry points, and what cannot work here is not listed."""

from importlib.metadata import EntryPoint, distribution

import pytest
import typer
from typer.testing import CliRunner

from fleetfl.cli import app, entry_points
from fleetfl.cli.entry_points import add_commands, missing_packages

pytestmark = pytest.mark.unit
COMMANDS = [
    "bench",
    "chaos",
    "codec",
    "config",
    "demo",
    "doctor",
    "model",
    "server",
    "sim",
    "status",
    "trace",
    "vehicle",
    "version",
]


class Dist:
    """Metadata of an installed package, as importlib.metadata has it."""

    def __init__(self, *requires: str) -> None:
        self.name, self.requires = "Fleet_FL", list(requires)


def point(name: str, value: str, *requires: str) -> EntryPoint:
    found = EntryPoint(name, value, entry_points.GROUP)
    vars(found)["dist"] = Dist(*requires)
    return found


def listed(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> str:
    """Help of an app with these entry points."""
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points)
    app = typer.Typer()
    app.command("first")(lambda: None)
    add_commands(app)
    return CliRunner().invoke(app, ["--help"]).stdout


def test_every_command_is_found_and_nothing_is_missing_here():
    found = {each.name for each in [*app.registered_groups, *app.registered_commands] if each.name}
    found |= {each.callback.__name__ for each in app.registered_commands if each.callback}
    assert found == {*COMMANDS}
    for each in entry_points.entry_points(group=entry_points.GROUP):
        assert missing_packages(each) == []


def test_the_installed_entry_points_are_those_of_the_project_file():
    points = {
        p.name: p.value
        for p in distribution("fleetfl").entry_points.select(group=entry_points.GROUP)
    }
    assert points["server"] == "actors.cli:server_app [server]"
    assert {*points} == {*COMMANDS} - {"doctor", "version"}


def test_extras_are_followed_to_others_and_names_compared_as_pip_does():
    requires = (
        'no.such_thing>=2; extra == "agent"',
        'NumPy>=1; extra == "agent"',
        "fleet-fl[agent]; extra == 'server'",
        'also_missing[x]>=1; python_version > "3" and extra == "server"',
        'other; extra == "dev"',
    )
    both = point("x", "fleetfl.cli.codec:codec_app [server]", *requires)
    assert missing_packages(both) == ["also-missing", "no-such-thing"]
    assert missing_packages(point("x", "fleetfl.cli.codec:codec_app", *requires)) == []


def test_what_cannot_work_here_is_not_listed_and_the_help_says_how_to_have_it(monkeypatch):
    here = point("codec", "fleetfl.cli.codec:codec_app")
    lacking = point(
        "model", "fleetfl.cli.model:model_app [server]", 'nothing-like-it; extra == "server"'
    )
    text = listed(monkeypatch, here, lacking)
    commands, _, epilog = text.partition("Not installed here")
    assert "codec" in commands
    assert "model" not in commands
    assert 'pip install "fleetfl[server]"' in " ".join(epilog.split())


def test_a_package_that_cannot_be_imported_takes_no_other_command_with_it(monkeypatch, capsys):
    broken = point("acme", "no_such_module_at_all:app")
    text = listed(monkeypatch, broken, point("codec", "fleetfl.cli.codec:codec_app"))
    assert "codec" in text
    assert "acme" not in text
    assert "fleetfl acme is left out: no_such_module_at_all:app" in capsys.readouterr().err
