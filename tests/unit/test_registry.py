"""Releases on disk: whole or not at all, never loaded damaged, and bounded in number."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fleetfl.coordination.deduplication import Contribution
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.registry.registry import Registry, RegistryError, Scores
from fleetfl.registry.release_file import Record, ReleaseFileError, read_release, write_release
from fleetfl.registry.retention import Config, retained
from fleetfl.registry.writer import Registrar
from fleetfl.vectors import Layout, digest

pytestmark = pytest.mark.unit
LAYOUT = Layout((("a", (2, 3)), ("b", (4,))))


def vector(version):
    return np.arange(10, dtype=np.float32) * np.float32(0.1) + version


def record(version, generation="one", **fields):
    defaults = {
        "parent": f"{generation}/{version - 1}" if version else None,
        "sha256": digest(vector(version)).hex(),
        "layout": LAYOUT.fingerprint.hex(),
        "num_values": LAYOUT.size,
        "created": 1_800_000_000.25 + version,
        "row": 10 * version,
        "updates": (Contribution("v1", "b", version, 2, 8),),
        "config": "c0ffee",
        "code": "0.1.0 abc",
    }
    return Record(generation=generation, version=version, **{**defaults, **fields})


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


def registrar(registry, **config):
    return Registrar(registry, Config(**config), {"fleet": "f", "seed": 1})


def fill(registry, versions, **config):
    one = registrar(registry, **config)
    for version in versions:
        one.add(record(version), LAYOUT, vector(version))
        one.flush()
    return one


def versions(registry, generation="one"):
    return sorted(registry.paths(generation))


def test_a_release_comes_back_to_the_bit_with_its_record(tmp_path):
    path = tmp_path / "deep" / "r.safetensors"
    write_release(path, record(3), LAYOUT, vector(3))
    again, layout, values = read_release(path)
    assert (again, layout) == (record(3), LAYOUT)
    assert values.tobytes() == vector(3).tobytes()


def test_plain_safetensors_and_server_initial_read_it_too(tmp_path):
    path = tmp_path / "r.safetensors"
    write_release(path, record(3), LAYOUT, vector(3))
    np.testing.assert_array_equal(load_file(path)["a"], vector(3)[:6].reshape(2, 3))
    np.testing.assert_array_equal(read_adapter(path)[1], vector(3))


def test_the_same_release_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_release(tmp_path / name, record(3), LAYOUT, vector(3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_flipped_bit_is_ever_loaded_as_something_else(tmp_path):
    """Every third byte of the file in turn. Blanks that fill up the header may change and mean the same."""
    path = tmp_path / "r.safetensors"
    write_release(path, record(3), LAYOUT, vector(3))
    whole = path.read_bytes()
    blanks = [at for at in range(len(whole) - 40) if not whole[at:-40].strip(b" ")]
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if at in blanks:
            continue
        with pytest.raises(ReleaseFileError, match=r"r\.safetensors"):
            read_release(path)


@pytest.mark.parametrize("content", [b"", b"junk" * 20])
def test_what_is_no_release_is_named(tmp_path, content):
    path = tmp_path / "r.safetensors"
    with pytest.raises(ReleaseFileError, match=r"r\.safetensors .*is missing"):
        read_release(path)
    path.write_bytes(content)
    with pytest.raises(ReleaseFileError, match=r"r\.safetensors has no record"):
        read_release(path)


@pytest.mark.parametrize(
    ("protected", "config", "staying"),
    [
        (set(), {"newest": 3, "every": 5}, {0, 5, 10, 11, 12}),
        ({4, 99}, {"newest": 1, "every": 100}, {0, 4, 12}),
        # 0, 5, 10, 11, 12 are 50 bytes: the two oldest go. The newest and the protected never do.
        (set(), {"newest": 3, "every": 5, "max_bytes": 30}, {10, 11, 12}),
        ({0}, {"newest": 3, "every": 5, "max_bytes": 0}, {0, 12}),
    ],
)
def test_retention(protected, config, staying):
    """Versions 0 to 12 of 10 bytes each."""
    assert retained(dict.fromkeys(range(13), 10), protected, Config(**config)) == staying
    assert retained({}, protected, Config(**config)) == set()


def test_the_best_scored_and_what_was_rolled_back_to_outlive_their_number(registry):
    one = fill(registry, range(3), newest=2, every=100)
    registry.score("one", 1, Scores(record(1).sha256, 0.9, {}))
    registry.score("one", 2, Scores(record(2).sha256, 0.4, {}))
    again = record(3, restores="one/2", sha256=digest(vector(2)).hex())
    one.add(again, LAYOUT, vector(2))
    one.flush()
    for version in range(4, 9):
        one.add(record(version), LAYOUT, vector(version))
        one.flush()
    assert versions(registry) == [0, 1, 2, 3, 7, 8]
    fill(registry, [9], newest=2, every=100)  # another process knows it from the files
    assert versions(registry) == [0, 1, 2, 3, 8, 9]


def test_scores_go_with_their_release(registry):
    one = fill(registry, range(2), newest=1, every=100)
    for version, accuracy in ((0, 0.2), (1, 0.1)):
        registry.score("one", version, Scores(record(version).sha256, accuracy, {}))
    fill(registry, [2], newest=1, every=100)
    assert versions(registry) == [0, 2]
    assert dict(registry.all_scores("one")).keys() == {0}
    assert one.waiting == {}


def test_scores_without_their_release_protect_nothing(registry):
    """Version 0 was deleted before it was scored, and best; version 5 is scored before it is flushed."""
    fill(registry, range(3), newest=2, every=100)
    registry.path("one", 0).unlink()
    for version, accuracy in ((0, 0.9), (1, 0.8), (5, 0.7)):
        registry.score("one", version, Scores(record(version).sha256, accuracy, {}))
    fill(registry, [3, 4], newest=2, every=100)
    assert versions(registry) == [1, 3, 4]
    assert dict(registry.all_scores("one")).keys() == {1, 5}
    fill(registry, [5], newest=2, every=100)
    assert registry.find("5").scores.accuracy == 0.7


def test_a_rollback_is_written_though_it_is_overtaken(registry):
    one = registrar(registry, newest=1, every=100)
    one.add(record(1, restores="one/0"), LAYOUT, vector(1))
    for version in (2, 3):
        one.add(record(version), LAYOUT, vector(version))
    assert list(one.waiting) == ["one/1", "one/3"]


def test_what_is_overtaken_before_a_flush_is_never_written(registry):
    one = registrar(registry, newest=3, every=10)
    for version in range(25):
        one.add(record(version), LAYOUT, vector(version))
    assert list(one.waiting) == [f"one/{version}" for version in (0, 10, 20, 22, 23, 24)]
    one.flush()
    assert versions(registry) == [0, 10, 20, 22, 23, 24]


def test_a_replay_leaves_a_whole_file_alone_and_writes_a_damaged_one_anew(registry, caplog):
    fill(registry, [4])
    path = registry.path("one", 4)
    first, inode = path.read_bytes(), path.stat().st_ino
    later = registrar(registry)
    later.add(record(4, code="9.9"), LAYOUT, vector(4))
    later.flush()
    assert (path.read_bytes(), path.stat().st_ino) == (first, inode)
    path.write_bytes(first[:-1])
    fill(registry, [4])
    assert "written again" in caplog.text
    assert path.read_bytes() == first


def test_other_bits_under_the_same_name_are_said(registry, caplog):
    fill(registry, [4])
    other = registrar(registry)
    other.add(record(4, sha256=digest(vector(5)).hex()), LAYOUT, vector(5))
    other.flush()
    assert "came again with other bits" in caplog.text
    assert read_release(registry.path("one", 4))[2].tobytes() == vector(5).tobytes()


def test_what_cannot_be_written_waits(registry):
    registry.folder.write_bytes(b"")
    one = registrar(registry)
    one.add(record(0), LAYOUT, vector(0))
    with pytest.raises(RegistryError, match="release one/0 and 0 after it are not in"):
        one.flush()
    registry.folder.unlink()
    one.flush()
    assert versions(registry) == [0]


def test_settings_are_kept_once_and_damage_in_them_is_said(registry):
    one = fill(registry, range(3))
    (path,) = (registry.folder / "configs").iterdir()
    assert registry.config(one.fingerprint) == {"fleet": "f", "seed": 1}
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    with pytest.raises(RegistryError, match="are DAMAGED"):
        registry.config(one.fingerprint)
    with pytest.raises(RegistryError, match=r"settings .*0123"):
        registry.config("0123")


def test_releases_are_found_by_the_names_that_people_use(registry):
    fill(registry, range(3))
    registry.score("one", 1, Scores(record(1).sha256, 0.5, {"fog": 0.5}))
    for name, version in (("2", 2), ("one/0", 0), ("newest", 2), ("best", 1)):
        assert registry.find(name).record.version == version
    renamed = registrar(registry)
    renamed.add(record(2, "two", created=1.9e9), LAYOUT, vector(2))
    renamed.flush()
    assert registry.find("2").record.generation == "two"
    with pytest.raises(
        RegistryError, match=r"1 is not in .*: there are one/0, one/1, one/2, two/2$"
    ):
        registry.find("1")


def test_what_is_not_there_is_said(registry):
    with pytest.raises(RegistryError, match=r"there are no releases in .*registry"):
        registry.find("newest")
    fill(registry, range(8))
    with pytest.raises(
        RegistryError, match=r"one/0, one/1, one/2, \.\.\., one/5, one/6, one/7, none .* scored"
    ):
        registry.find("best")


def test_a_damaged_release_is_listed_as_such_and_not_loaded(registry, caplog):
    fill(registry, range(2))
    path = registry.path("one", 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    (damaged,) = [entry for entry in registry.entries() if entry.record is None]
    assert (damaged.name, damaged.path) == ("one/1", path)
    assert "is DAMAGED: SHA-256" in damaged.damage
    assert damaged.damage in caplog.text
    with pytest.raises(ReleaseFileError, match="is DAMAGED"):
        registry.find("one/1")


def test_scores_are_believed_of_the_bits_that_they_name(registry, caplog):
    fill(registry, range(2))
    registry.score("one", 0, Scores(record(1).sha256, 0.5, {}))
    registry.score("one", 1, Scores(record(1).sha256, 0.6, {"fog": 0.25}))
    assert [entry.scores for entry in registry.entries()] == [
        None,
        Scores(record(1).sha256, 0.6, {"fog": 0.25}),
    ]
    (registry.folder / "one" / "00000001.scores.json").write_bytes(b"{")
    assert registry.scores(record(1)) is None
    assert "scores.json is DAMAGED" in caplog.text
