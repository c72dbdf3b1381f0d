"""Files of our own that somebody has changed: every reader has an error of its own, or goes on."""

import json
import os
import random
from hashlib import sha256

import msgspec
import numpy as np
import pytest

from actors.monitoring import status
from fleetfl import config as settings
from fleetfl.config import ConfigError, Section
from fleetfl.evaluation.held_out import HeldOut, HeldOutError, read_held_out
from fleetfl.events.event_log import EventLog, EventReader
from fleetfl.protocol.signing import IdentityError, Keyring, OneKey, Signer
from fleetfl.registry import ban
from fleetfl.registry.adapter_file import AdapterFileError, read_adapter, write_adapter
from fleetfl.registry.registry import Registry, RegistryError, fingerprint_of
from fleetfl.registry.release_file import ReleaseFileError, read_record, read_release
from fleetfl.storage import client_ids
from fleetfl.storage.atomic_write import write_durably
from fleetfl.storage.checkpoints import CheckpointError, Checkpoints
from fleetfl.storage.high_water import HighWater
from fleetfl.storage.journal import Journal, JournalError
from fleetfl.tasks.classification import Classification
from fleetfl.vectors import Layout

pytestmark = pytest.mark.unit
DEEP = 100_000
LAYOUT = Layout((("w", (5,)),))
CONTENTS = {
    "nothing": b"",
    "zeros": bytes(500),
    "noise": random.Random(1).randbytes(500),
    "no UTF-8": b"\xff\xfe\x00a\xd8",
    "lists in lists": b"[" * DEEP,
    "tables in tables": b'{"a":' * DEEP,
    "a number": b"7",
    "a list": b"[1, 2]",
    "null": b"null",
}


@pytest.fixture(params=CONTENTS.values(), ids=list(CONTENTS))
def odd(request, tmp_path):
    path = tmp_path / "odd"
    path.write_bytes(request.param)
    return path


READERS = {
    "adapter": (read_adapter, AdapterFileError),
    "release": (read_release, ReleaseFileError),
    "record": (read_record, ReleaseFileError),
    "held out": (lambda path: read_held_out(path, Classification(("a", "b", "c"))), HeldOutError),
    "private key": (lambda path: Signer.from_file("f", path), IdentityError),
    "public key": (lambda path: OneKey("f", path), IdentityError),
    "journal": (lambda path: Journal(path).rows(0, 9), JournalError),
}


@pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)
def test_whatever_a_file_holds_is_the_readers_own_error(odd, read, error):
    if read is READERS["journal"][0] and odd.stat().st_size < 2:
        return  # SQLite takes an empty file for a new one
    with pytest.raises(error, match="odd"):
        read(odd)


@pytest.fixture
def pipe(tmp_path):
    """Whoever opens it as if it were a file waits for ever."""
    os.mkfifo(tmp_path / "odd")
    return tmp_path / "odd"


@pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)
def test_a_pipe_in_a_files_place_is_the_readers_own_error(pipe, read, error):
    with pytest.raises(error, match="odd"):
        read(pipe)


def test_pipes_all_over_a_state_folder_hold_nobody_up(tmp_path):
    for name in (
        "keys/v1.pub",
        "checkpoints/7.checkpoint",
        "generation",
        "gateway-id",
        "bans.json",
        "events.jsonl",
        "events.jsonl.1",
        "registry/1-a/00000001.scores.json",
        "registry/configs/aa.json",
        ".new.partial",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
    assert "v1.pub" in Keyring("f", tmp_path / "keys").objection("v1", b"frame", bytes(64))
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoints(tmp_path / "checkpoints").newest()
    generation = HighWater(tmp_path / "generation")
    assert generation.number == 0
    with pytest.raises(OSError, match="generation"):
        generation.raise_to(3, durably=True)
    with pytest.raises(OSError, match="gateway-id"):
        client_ids.server_of(tmp_path)
    assert ban.in_force(tmp_path) == {}
    EventLog(tmp_path / "events.jsonl").write("journal_resumed")
    assert EventReader(tmp_path / "events.jsonl").read() == []
    registry = Registry.of_server(tmp_path)
    assert list(registry.all_scores("1-a")) == []
    with pytest.raises(RegistryError, match=r"aa\.json"):
        registry.config("aa")
    with pytest.raises(OSError, match="new"):
        write_durably(tmp_path / "new", b"content")


def test_a_key_as_long_as_a_disk_is_not_read_into_memory(tmp_path):
    with (tmp_path / "odd").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(IdentityError, match="odd"):
        OneKey("f", tmp_path / "odd")


def test_a_gateways_id_that_is_no_text_is_drawn_anew(tmp_path):
    (tmp_path / client_ids.FILE).write_bytes(b"\xff\xfe")
    drawn = client_ids.server_of(tmp_path)
    assert drawn == client_ids.server_of(tmp_path)
    assert drawn.isalnum()


@pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)
def test_a_folder_in_a_files_place_is_the_readers_own_error(tmp_path, read, error):
    (tmp_path / "odd").mkdir()
    with pytest.raises(error, match="odd"):
        read(tmp_path / "odd")


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"fleetfl": "7"},
        {"fleetfl": "[]"},
        {"fleetfl": '{"record": 1, "sha256": 2}'},
        {"fleetfl": "[" * DEEP},
        {"fleetfl": '{"record": {"version": "x"}, "sha256": ""}'},
    ],
)
def test_a_release_whose_record_is_something_else_is_damaged(tmp_path, about):
    from safetensors.numpy import save

    path = tmp_path / "r.safetensors"
    path.write_bytes(save({"w": np.ones(5, np.float32)}, metadata=about))
    with pytest.raises(ReleaseFileError):
        read_release(path)


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16", "bool"])
def test_an_adapter_of_other_numbers_is_refused(tmp_path, dtype):
    from safetensors.numpy import save

    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"w": np.ones(5, dtype)}))
    with pytest.raises(AdapterFileError, match="is not finite float32"):
        read_adapter(path)


def test_an_adapter_of_numbers_that_numpy_has_not_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    head = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with pytest.raises(AdapterFileError, match=r"a\.safetensors"):
        read_adapter(path)


def test_damaged_adapters_are_refused_or_whole(tmp_path):
    path, dice = tmp_path / "a.safetensors", random.Random(2)
    write_adapter(path, LAYOUT, np.arange(5, dtype=np.float32), version=3)
    sound = path.read_bytes()
    for _ in range(500):
        content = bytearray(sound)
        for _ in range(dice.choice((1, 2, 8))):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content[: dice.choice((len(content), dice.randrange(len(content))))])
        try:
            layout, vector = read_adapter(path)
        except AdapterFileError:
            continue
        assert vector.shape == (layout.size,)
        assert np.isfinite(vector).all()


STATES = {
    "nested": b"\x91" * DEEP + b"\x01",
    "cut": msgspec.msgpack.encode([1, 2])[:-1],
    "an array of no shape": msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\x90")),
    "an array of objects": msgspec.msgpack.encode(
        msgspec.msgpack.Ext(1, msgspec.msgpack.encode(("|O", [1], bytes(8))))
    ),
    "an array of another size": msgspec.msgpack.encode(
        msgspec.msgpack.Ext(1, msgspec.msgpack.encode(("<f4", [9], bytes(8))))
    ),
}


@pytest.mark.parametrize("content", STATES.values(), ids=STATES)
def test_a_checkpoint_that_hashes_right_and_is_something_else_is_set_aside(tmp_path, content):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {"row": 1})
    whole = b"FFC1" + sha256(content).digest() + content
    (tmp_path / f"{2:020d}.checkpoint").write_bytes(whole)
    (tmp_path / "notes.checkpoint").write_text("mine")
    assert checkpoints.newest() == (1, {"row": 1})
    assert len(checkpoints.set_aside) == 1
    (tmp_path / f"{1:020d}.checkpoint").unlink()
    with pytest.raises(CheckpointError):
        checkpoints.newest()


def test_a_registry_with_files_of_other_names_and_contents_is_listed(odd, tmp_path):
    registry = Registry(tmp_path / "registry")
    folder = tmp_path / "registry" / "one"
    folder.mkdir(parents=True)
    for name in (
        "00000001.safetensors",
        "1 copy.safetensors",
        "00000001.scores.json",
        "x.scores.json",
    ):
        (folder / name).write_bytes(odd.read_bytes())
    (entry,) = registry.entries()
    assert entry.record is None
    assert entry.damage
    assert list(registry.all_scores("one")) == []
    content = odd.read_bytes()
    path = registry.config_path(fingerprint_of(content))
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RegistryError):
        registry.config(fingerprint_of(content))


def test_lines_that_are_no_events_are_passed_over(odd, tmp_path):
    path = tmp_path / "events.jsonl"
    good = json.dumps({"time": 1.0, "event": "released"}).encode()
    path.write_bytes(good + b"\n" + odd.read_bytes() + b"\n" + good + b"\n")
    assert [event["event"] for event in EventReader(path).read()] == ["released"] * 2


class Schema(Section):
    name: str = "x"
    more: dict[str, object] | None = None


@pytest.mark.parametrize("content", [c for n, c in CONTENTS.items() if n not in ("nothing",)])
def test_settings_of_anything_are_one_error(tmp_path, content):
    path = tmp_path / "fleet.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"fleet\.yaml"):
        settings.load(path, "server", Schema)


@pytest.mark.parametrize(
    "text",
    [
        "name: 2024-99-99",
        "more: &m {a: *m}",
        "more: {a: &a [x, x], b: &b [*a, *a], c: &c [*b, *b]" + ", z: [1]}]",
        "? [1, 2]\n: x",
        "name: !!python/object:os.system {}",
        "1: 2",
        "server: [1]",
        "name: \x00",
        "extends: fleet.yaml",
        "extends: [1]",
        "extends: {a: b}",
        "extends: " + "x" * 5000,
        'extends: "a\\0b"',
        "<<: 7",
        "name: " + "[" * 5000,
        "more: " + "{a: " * 5000,
    ],
)
def test_yaml_that_means_mischief_is_one_error(tmp_path, text):
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"fleet\.yaml|x{50}|a\x00b"):
        settings.load(path, "server", Schema)


def test_aliases_that_repeat_themselves_a_billion_times_are_one_error(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    path = tmp_path / "fleet.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="more than 200,000 values"):
        settings.load(path, "server", Schema)


@pytest.mark.parametrize(
    "kind", ["..", "os.path", "a\0b.c", ".x", "x" * 300, "fleetfl.codecs", "a b"]
)
def test_kinds_that_are_no_component_are_one_error(tmp_path, kind):
    from actors.config import ServerConfig

    path = tmp_path / "fleet.yaml"
    told = {
        "fleet": "f",
        "model": {"classes": ["a", "b"]},
        "server": {"aggregator": {"kind": kind}},
    }
    path.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"fleet\.yaml"):
        settings.load(path, "server", ServerConfig)


@pytest.mark.parametrize("name", ["..", "x" * 400, "a\0b", "a/b", "\ud800", ""])
def test_a_keyring_believes_nobody_of_an_impossible_name(tmp_path, name):
    one = Signer.from_file("f", tmp_path / "key.pem")
    keys = Keyring("f", tmp_path / "keys", first_use=True)
    assert keys.objection(name, b"frame", one.sign(b"frame"), offered=b"short")


def test_pages_that_are_no_servers_are_one_error(odd, monkeypatch):
    content = odd.read_bytes()
    monkeypatch.setattr(status, "_fetched", lambda url, timeout_s: content)
    with pytest.raises(status.StatusError, match="no fleetfl server"):
        status.look("http://127.0.0.1:1")


def test_held_out_frames_that_are_damaged_are_one_error(tmp_path):
    path, dice = tmp_path / "held.npz", random.Random(4)
    HeldOut(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 3, np.array(list("abcd"))).save(path)
    sound = path.read_bytes()
    for _ in range(300):
        content = bytearray(sound)
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        try:
            read_held_out(path, Classification(("a", "b", "c")))
        except HeldOutError:
            continue
