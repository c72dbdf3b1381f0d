"""`fleetfl model` on a folder of releases, as a person types it."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, safe_open
from typer.testing import CliRunner

from fleetfl.cli import app
from fleetfl.coordination.deduplication import Contribution
from fleetfl.models.backbones.fleet_vit import architecture
from fleetfl.registry.adapter_file import read_adapter
from fleetfl.registry.diff import DiffError, changes
from fleetfl.registry.registry import Registry, RegistryError, Scores
from fleetfl.registry.release_file import Record, ReleaseFileError
from fleetfl.registry.retention import Config
from fleetfl.registry.writer import Registrar
from fleetfl.vectors import Layout, digest

pytestmark = pytest.mark.unit
SETTINGS = {"fleet": "f", "seed": 1, "model": {"classes": ["a", "b", "c"]}}


def release(registry, layout, vector, version, **fields):
    registrar = Registrar(registry, Config(), SETTINGS)
    record = Record(
        generation="one",
        version=version,
        parent=f"one/{version - 1}" if version else None,
        sha256=digest(vector).hex(),
        layout=layout.fingerprint.hex(),
        num_values=layout.size,
        created=1_800_000_000 + version,
        row=version,
        updates=(Contribution("drone-1", "boot", version, 2, 8),),
        config=registrar.fingerprint,
        code="0.1.0",
        **fields,
    )
    registrar.add(record, layout, vector)
    registrar.flush()


LAYOUT = Layout((("a", (2, 2)), ("b", (2,))))
FIRST = np.float32([3, 0, 0, 4, 0, 0])
SECOND = np.float32([3, 0, 0, 1, 0, 2])


@pytest.fixture
def state(tmp_path):
    registry = Registry.of_server(tmp_path)
    release(registry, LAYOUT, FIRST, 0)
    release(registry, LAYOUT, SECOND, 1)
    release(registry, LAYOUT, FIRST, 2, restores="one/0", reason="worse in fog")
    registry.score("one", 1, Scores(digest(SECOND).hex(), 0.75, {"fog": 0.5}))
    return tmp_path


def run(state, *words):
    done = CliRunner().invoke(app, ["model", *words, "--state", str(state)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_list(state):
    listed = json.loads(run(state, "list", "--json"))
    assert [(row["name"], row["parent"], row["updates"], row["accuracy"]) for row in listed] == [
        ("one/0", None, 1, None),
        ("one/1", "one/0", 1, 0.75),
        ("one/2", "one/1", 1, None),
    ]
    assert [row["marks"] for row in listed] == [["rolled back to"], ["best"], ["newest"]]
    said = run(state, "list")
    for word in ("75.0%", "2027-01-15 08:00:01", "bits of one/0", digest(SECOND).hex()[:12]):
        assert word in said


def test_a_damaged_one_is_marked_and_never_loaded(state):
    path = Registry.of_server(state).path("one", 1)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert json.loads(run(state, "list", "--json"))[1]["marks"] == ["DAMAGED"]
    assert "DAMAGED" in run(state, "list")
    for words in (
        ("show", "1"),
        ("diff", "0", "1"),
        ("export", "1", str(state / "x.safetensors")),
        ("rollback", "1"),
    ):
        with pytest.raises(ReleaseFileError, match="is DAMAGED: SHA-256"):
            run(state, *words)
    assert not (state / "x.safetensors").exists()


def test_show(state):
    told = json.loads(run(state, "show", "best", "--json"))
    assert (told["name"], told["scores"]["by_condition"]) == ("one/1", {"fog": 0.5})
    assert told["settings"] == SETTINGS
    assert told["updates"][0]["vehicle"] == "drone-1"
    said = run(state, "show", "2")
    for word in ("worse in fog", "one/0", "drone-1 boot boot sequence 2: 8 examples, 2 versions"):
        assert word in said


def test_without_its_settings_a_release_is_shown_all_the_same(state):
    (settings,) = (state / "registry" / "configs").iterdir()
    settings.unlink()
    assert json.loads(run(state, "show", "1", "--json"))["settings"] is None
    assert "accuracy    75.0%" in run(state, "show", "1")


def test_diff(state):
    """a goes from (3, 0, 0, 4) to (3, 0, 0, 1): norm 5, change 3, cosine 13 / (5 sqrt 10)."""
    told = json.loads(run(state, "diff", "0", "1", "--json"))
    a, b, all_of_it = told["tensors"]
    assert (a["tensor"], a["norm"], a["change"], a["largest"]) == ("a", 5, 3, -3)
    assert a["cosine"] == pytest.approx(13 / (5 * 10**0.5))
    assert (b["norm"], b["change"], b["cosine"], b["largest"]) == (0, 2, 0, 2)
    assert all_of_it["change"] == pytest.approx(13**0.5)
    assert told["scores"]["one/0"] is None
    said = run(state, "diff", "0", "1")
    assert "60.0%" in said
    assert "75.0%" in said


def test_a_release_does_not_differ_from_its_rollback(state):
    same = changes(LAYOUT, FIRST, FIRST)[-1]
    assert (same.change, same.cosine, same.largest) == (0, pytest.approx(1), 0)
    assert changes(LAYOUT, 0 * FIRST, 0 * FIRST)[-1].cosine == 1


def test_releases_of_two_models_are_not_compared(state):
    release(Registry.of_server(state), Layout.flat(2), np.ones(2, np.float32), 3)
    with pytest.raises(DiffError, match=r"tensors \(2 of 6 values against 1 of 2 values\)"):
        run(state, "diff", "0", "3")


def test_export_is_read_by_us_and_by_plain_safetensors(state):
    file = state / "out" / "adapter.safetensors"
    assert digest(SECOND).hex() in run(state, "export", "1", str(file))
    layout, vector = read_adapter(file)
    assert (layout, vector.tobytes()) == (LAYOUT, SECOND.tobytes())
    assert load_arrays(file)["a"].tolist() == [[3, 0], [0, 1]]


def test_merged_export_is_a_network_that_timm_builds(tmp_path, model_config):
    """Adapter and head drawn at random; the same logits from timm's own class, strictly loaded."""
    model = model_config.model_copy(update={"classes": ("a", "b", "c")}).build()
    vector = np.random.default_rng(1).normal(size=model.layout.size).astype(np.float32) * 0.1
    release(Registry.of_server(tmp_path), model.layout, vector, 0)
    file = tmp_path / "whole.safetensors"
    run(tmp_path, "export", "0", str(file), "--merged")
    plain = architecture().eval()
    plain.reset_classifier(3)
    plain.load_state_dict(load_file(file), strict=True)
    images = np.random.default_rng(2).integers(0, 256, (4, 64, 64, 3), np.uint8)
    model.load(vector)
    with safe_open(file, "pt") as opened, torch.no_grad():
        about = json.loads(opened.metadata()["fleetfl"])
        mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        torch.testing.assert_close(
            plain((pixels - mean) / std), model(torch.from_numpy(images)), atol=1e-3, rtol=1e-3
        )
    assert (about["classes"], about["image_size"]) == (["a", "b", "c"], 64)
    assert about["record"]["sha256"] == digest(vector).hex()


@pytest.mark.parametrize("words", [("show", "7"), ("diff", "0", "7"), ("rollback", "one/7")])
def test_what_is_not_there_is_named_with_what_is(state, words):
    with pytest.raises(RegistryError, match=r"7 is not in .*: there are one/0, one/1, one/2$"):
        run(state, *words)


def test_a_folder_without_releases_is_named(tmp_path):
    with pytest.raises(RegistryError, match="there are no releases in"):
        run(tmp_path, "list")
