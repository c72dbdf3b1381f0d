"""What people save as settings: read, or one line that names the file and the field, and no password."""

import time

import pytest
import yaml

from actors.config import ServerConfig
from fleetfl.config import ConfigError, load, read, table, validate
from fleetfl.config.settings_file import MAX_BYTES
from vehicle_agent.config import VehicleConfig

pytestmark = pytest.mark.unit
GOOD = "fleet: größe\n"
TREE = {
    "fleet": "f",
    "model": {"classes": ["a", "b"]},
    "transport": {"kind": "mqtt"},
    "server": {"state": "s"},
    "vehicle": {"name": "v", "state": "s", "sensor": {"kind": "labelled_npz", "path": "x"}},
}


def refusal(path, *overrides, part="server", schema=ServerConfig):
    with pytest.raises(ConfigError) as unfit:
        load(path, part, schema, overrides)
    said = str(unfit.value)
    assert "\n" not in said
    return said


def written(tmp_path, content):
    path = tmp_path / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_how_to_read_it(tmp_path, encoding):
    assert read(written(tmp_path, GOOD.encode(encoding))) == {"fleet": "größe"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "x.yaml: holds null, expected a table"),
        (b"# nothing but a comment\n", "x.yaml: holds null"),
        (b"a: 1\nfleet: gr\xf6\xdfe\n", "x.yaml: line 2: byte 0xf6 is not UTF-8; save the file"),
        (GOOD.encode("utf-16-le"), "x.yaml: "),
        (b"\xff\xfeabc", "is not UTF-16"),
        (b"\x7fELF\0\0\0\0\xff", "x.yaml: "),
        (b"a: \0", "x.yaml: not YAML"),
        (b"a:\n\t- 1\n", "x.yaml: not YAML: line 2, column 1"),
        (b"a: 1\na: 2\n", "x.yaml: line 2: 'a' is set twice"),
        (b"s:\n  a: 1\n  b: 2\n  'a': 3\n", "line 4: 'a' is set twice"),
        (b"1: a\n", "line 1: '1' is no name"),
        (b"on: a\n", "line 1: 'on' is no name"),
        (b"? [a]\n: b\n", "line 1: a list or table is no name"),
        (b"a: 1\n---\na: 2\n", "x.yaml: not YAML: line 2"),
        (b"a: !!python/object:os.system x\n", "x.yaml: not YAML: line 1"),
        (b"a: 2020-02-31\n", "x.yaml: not YAML"),
        (b"a: " + b"9" * 5000, "x.yaml: not YAML"),
        (b"[" * 200 + b"]" * 200, "nested"),
        (b"{a: " * 5000, "nested"),
        (b"a: &a [*a]\n", "contains itself"),
        (b'a: {b: ["x\\0y"]}\n', "x.yaml: a.b.0: holds characters that are no text"),
        (b'a: "\\ud800"\n', "x.yaml: a: holds characters"),
        (b"extends: x.yaml\n", "extends itself"),
        (b"extends: 3\n", "x.yaml: extends: got 3, expected the name of a file"),
        (b"extends:\n", "x.yaml: extends: got null"),
        (b"extends: [a, b]\n", "x.yaml: extends: got a list of 2"),
        (b"extends: gone.yaml\n", "x.yaml: extends: "),
        (b"extends: .\n", "is no file of settings"),
        (b"extends: " + b"y" * 5000, "cannot be read: File name too long"),
        (b"server:\n", "x.yaml: server: got null, expected a table"),
        (b"server: [1, 2]\n", "x.yaml: server: got a list of 2, expected a table"),
    ],
)
def test_what_is_no_settings_is_one_line_that_names_the_file(tmp_path, content, says):
    assert says in refusal(written(tmp_path, content))


def test_files_that_extend_each_other_are_told(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml\n")
    assert "extends itself" in refusal(tmp_path / "a.yaml")


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert "is no file of settings" in refusal(path)
    assert "cannot be read" in refusal(tmp_path / "a\0b")


def test_a_bomb_of_aliases_and_a_huge_file_are_refused_at_once(tmp_path):
    """Nine times nine, nine levels deep: 387 million values from 400 bytes."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    began = time.monotonic()
    assert "holds more than" in refusal(written(tmp_path, "\n".join(levels)))
    assert "expected settings of at most" in refusal(written(tmp_path, b"#" * (MAX_BYTES + 1)))
    assert time.monotonic() - began < 60  # unbounded, it would not end


def test_anchors_and_merged_tables_are_still_read(tmp_path):
    text = "base: &b {x: 1, y: 2}\nserver: {<<: *b, y: 3}\nother: *b\n"
    assert read(written(tmp_path, text))["server"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "override", ["=3", "a..b=3", ".a=3", "a.=3", "a" + ".a" * 2000 + "=3", "hunter2"]
)
def test_an_override_that_names_nothing_is_told(tmp_path, override):
    assert "expected NAME.NAME=VALUE" in refusal(written(tmp_path, yaml.safe_dump(TREE)), override)


@pytest.mark.parametrize(
    ("part", "schema", "override"),
    [
        ("server", ServerConfig, "server.checkpoint_s=.nan"),
        ("server", ServerConfig, "server.checkpoint_s=.inf"),
        ("server", ServerConfig, "server.state=3"),
        ("server", ServerConfig, "server.http.host=[a]"),
        ("server", ServerConfig, "server.aggregator.kind=os.path"),
        ("server", ServerConfig, "server.aggregator.kind=.x"),
        ("server", ServerConfig, "server.aggregator.kind=a..b"),
        ("server", ServerConfig, 'server.aggregator.kind="fed buff"'),
        ("server", ServerConfig, "server.aggregator=[fedbuff]"),
        ("server", ServerConfig, "fleet=[1, 2]"),
        ("server", ServerConfig, 'fleet="depot\\n"'),
        ("server", ServerConfig, "fleet=depot٣"),
        ("vehicle", VehicleConfig, 'vehicle.name="v1\\n"'),
        ("vehicle", VehicleConfig, "vehicle.name=gateway/0"),
        ("vehicle", VehicleConfig, "vehicle.agent.resend_s=.inf"),
    ],
)
def test_wrong_values_are_one_line_that_names_the_field(tmp_path, part, schema, override):
    said = refusal(written(tmp_path, yaml.safe_dump(TREE)), override, part=part, schema=schema)
    field = override.split("=")[0].removesuffix(".kind")
    assert f"x.yaml: {field}" in said


SECRET = "hunter2"


@pytest.mark.parametrize(
    "override",
    [
        "transport.password=4711",
        "transport.password=[4711]",
        "transport.password={a: 4711}",
        "transport.pasword=4711",
        "transport.passwort={a: [4711]}",
        "transport={password: 4711}",
        "transport={kind: , password: 4711}",
        "transport=[4711]",
        "transport={kind: mqtt, username: 4711}",
        "server={state: s, password: 4711}",
        "transport.password=[4711",
        "transport.password='4711",
        "transport.password=*4711",
        "transport.password=!4711",
        "transport.password=@4711",
        "transport.password=%4711",
        "transport.password=&4711 *a4711",
        "password=4711",
    ],
)
def test_no_error_repeats_a_password(tmp_path, override):
    said = refusal(written(tmp_path, yaml.safe_dump(TREE)), override)
    assert "4711" not in said
    text = yaml.safe_dump(TREE) + "\nmine:\n  " + override.split("=", 1)[1]
    with pytest.raises(ConfigError) as unfit:
        load(written(tmp_path, text), "server", ServerConfig)
    assert "4711" not in str(unfit.value)


def test_a_traceback_has_no_password_either(tmp_path):
    import traceback

    tree = {**TREE, "transport": {"kind": "mqtt", "password": int("4711")}}
    with pytest.raises(ConfigError) as unfit:
        validate(tree, "server", ServerConfig, "x")
    assert "4711" not in "".join(traceback.format_exception(unfit.type, unfit.value, None))
    with pytest.raises(ValueError, match="password") as hidden:
        ServerConfig.model_validate({**tree, **tree["server"]})
    assert "4711" not in str(hidden.value)


def test_a_part_that_is_not_there_is_an_empty_table():
    assert table({}, "sim", "x") == {}
