"""What a value means beside its place: whoever means something else is refused, and the part is named."""

import json

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file

from fleetfl.aggregators.fedbuff import Config as FedBuff
from fleetfl.closed_form import ClosedFormHead, SufficientStatistics, features_of
from fleetfl.closed_form import Config as ClosedForm
from fleetfl.codecs import CodecError, decoder
from fleetfl.codecs.float32 import Config as Float32
from fleetfl.codecs.spectral import Config as Spectral
from fleetfl.coordination.coordinator import Coordinator, Refusal
from fleetfl.models import ModelConfig
from fleetfl.models.backbones.fleet_vit import WEIGHTS
from fleetfl.models.weights_file import weights_sha256
from fleetfl.plugins import available
from fleetfl.protocol import topics, wire
from fleetfl.protocol.messages import Rollback, Update
from fleetfl.protocol.signing import Signer
from fleetfl.registry.adapter_file import (
    AdapterFileError,
    adapter_bytes,
    read_adapter,
    write_adapter,
)
from fleetfl.releases.versions import Follower, Published, ReleaseError
from fleetfl.server_optimizers.sgd import Config as Sgd
from fleetfl.transport import mqtt_publish_bytes
from fleetfl.vectors import PARTS, Layout, digest
from sim import world
from vehicle_agent.sensors import Frames
from vehicle_agent.trainer import Trainer
from vehicle_agent.training import Config as TrainerConfig

pytestmark = pytest.mark.unit

TENSORS = {"head.bias": np.zeros(2, np.float32), "head.weight": np.zeros((2, 3), np.float32)}
MEANING = {
    "classes": ["cat", "dog"],
    "backbone": {"kind": "fleet_vit"},
    "weights": "00ff",
    "image_size": 64,
    "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": "bilinear"},
    "adapter": {"kind": "lora", "alpha": 16.0, "rank": 8, "targets": ["qkv"]},
}
OURS = Layout.of(TENSORS, MEANING)
OTHERS = {
    "classes": ["dog", "cat"],
    "backbone": {"kind": "hf_vision"},
    "weights": "00fe",
    "image_size": 96,
    "preprocessing": {"mean": [0.5, 0.5, 0.4], "std": [0.5, 0.5, 0.5], "resize": "bilinear"},
    "adapter": {"kind": "lora", "alpha": 32.0, "rank": 8, "targets": ["qkv"]},
}


def other_in(part):
    return Layout.of(TENSORS, {**MEANING, part: OTHERS[part]})


def coordinator(layout=OURS, **more):
    start = np.zeros(layout.size, np.float32)
    return Coordinator(
        start,
        layout,
        FedBuff(goal=2).build(layout.size),
        Sgd().build(layout.size),
        release_codec=Float32(),
        generation="one",
        **more,
    )


@pytest.fixture
def update_of(make_update):
    def make(layout, **fields):
        delta = np.ones(layout.size, np.float32)
        return make_update(delta, layout=layout.fingerprint, parts=layout.parts, **fields)

    return make


def test_the_order_of_the_parts_is_that_of_frames_in_the_field():
    """A new part may be added at the end: bytes of older versions keep their place."""
    assert PARTS[:6] == ("classes", "backbone", "weights", "image_size", "preprocessing", "adapter")
    assert len(OURS.parts) == 1 + len(PARTS) <= 16


def test_a_layout_without_a_meaning_is_what_it_was_in_older_versions():
    assert Layout.flat(4).fingerprint.hex() == "803d9130e66da684"
    assert Layout.of(TENSORS) == OURS.plain
    assert len(Layout.flat(4).parts) == 1


def test_parts_that_are_none_of_ours_are_named():
    with pytest.raises(ValueError, match="colour"):
        Layout.of(TENSORS, {"colour": "red"})


@pytest.mark.parametrize("part", PARTS)
def test_the_part_that_differs_is_named_with_our_value(part):
    other = other_in(part)
    assert other.fingerprint != OURS.fingerprint
    said = OURS.objection(other.fingerprint, other.parts, ours="the server's")
    assert said.startswith(f"model differs in {part} (the server's: ")
    assert json.dumps(MEANING[part], sort_keys=True)[:40] in said
    assert [name for name in PARTS if f"{name} (" in said] == [part]
    assert OURS.difference(other).startswith(part)


def test_several_parts_are_all_named_and_fit_into_a_receipt():
    many = [f"class number {n}" for n in range(1000)]
    ours = Layout.of(TENSORS, {**MEANING, "classes": many})
    wider = {**TENSORS, "head.bias": np.zeros(3, np.float32)}
    other = Layout.of(wider, {**MEANING, "adapter": OTHERS["adapter"]})
    said = ours.objection(other.fingerprint, other.parts, ours="the server's")
    assert all(f"{name} (the server's: " in said for name in ("tensors", "classes", "adapter"))
    assert len(said) <= 300


def test_what_cannot_be_known_is_said_to_be_unknown():
    strange = OURS.objection(b"strange!", b"", ours="the server's")
    assert b"strange!".hex() in strange
    assert "not known" in strange
    older = OURS.objection(OURS.plain.fingerprint, b"", ours="the server's")
    assert "says nothing of classes" in older
    assert OURS.objection(OURS.fingerprint, b"", ours="the server's") == ""


@pytest.mark.parametrize("part", PARTS)
def test_an_update_that_means_something_else_is_refused_by_name(part, update_of):
    server = coordinator()
    assert server.submit(update_of(OURS)).verdict == "accepted"
    refused = server.submit(update_of(other_in(part), sequence=1))
    assert (refused.verdict, refused.reason) == ("refused", Refusal.LAYOUT)
    assert f"model differs in {part} (the server's: " in refused.detail


def test_an_update_that_says_nothing_of_its_meaning_is_refused(update_of):
    refused = coordinator().submit(update_of(OURS.plain, base_version=0))
    assert refused.reason == Refusal.LAYOUT
    older = coordinator().submit(replace(update_of(OURS.plain), parts=b""))
    assert older.reason == Refusal.LAYOUT
    assert "older versions" in older.detail


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["release", "snapshot"])
def test_a_vehicle_refuses_the_release_of_another_model_by_name(part, kind):
    vector = np.zeros(OURS.size, np.float32)
    server = Published(vector, OURS, Float32(), generation="one")
    follower = Follower(other_in(part))
    with pytest.raises(ReleaseError, match=rf"model differs in {part} \(this vehicle's: "):
        follower.adopt(server.whole()) if kind == "snapshot" else follower.missing(
            server.recent[-1]
        )
    assert follower.held is None


# Closed form.


@pytest.mark.parametrize("part", PARTS)
def test_sums_are_of_the_same_features_only_if_the_whole_model_is_the_same(part):
    """Classes do not change features; the update's layout tells those."""
    vector = np.zeros(OURS.size, np.float32)
    same = features_of(vector, OURS) == features_of(vector, other_in(part))
    assert same == (part == "classes")
    assert features_of(vector, OURS) != features_of(vector, OURS.plain)


def test_sums_of_other_features_are_refused():
    vector = np.zeros(OURS.size, np.float32)
    head = ClosedFormHead(ClosedForm(vehicles=2), OURS, vector)
    sums = SufficientStatistics.of(np.eye(3), np.array([0, 1, 0]), 2)
    head.put("v1", sums.packed(features_of(vector, OURS)), 3)
    with pytest.raises(CodecError, match="statistics of features"):
        head.put("v2", sums.packed(features_of(vector, other_in("weights"))), 3)


def test_sums_that_an_older_version_took_are_there_after_it_is_restored():
    vector = np.zeros(OURS.size, np.float32)
    sums = SufficientStatistics.of(np.eye(3), np.array([0, 1, 0]), 2)
    older = ClosedFormHead(ClosedForm(vehicles=2), OURS.plain, vector)
    older.put("v1", sums.packed(features_of(vector, OURS.plain)), 3)
    head = ClosedFormHead(ClosedForm(vehicles=2), OURS, vector)
    head.restore(older.snapshot())
    assert head.features == features_of(vector, OURS)
    assert head.total.num_examples == 3
    assert head.forget("v1")
    assert not head.total.gram.any()


# Every setting of a model.


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The shipped weights, the same in another file, others; small ones of timm and transformers."""
    import timm
    import transformers

    folder = tmp_path_factory.mktemp("weights")
    shipped = load_file(WEIGHTS)
    torch.save(
        {"state_dict": {f"module.{n}": t.float() for n, t in shipped.items()}}, folder / "same.pt"
    )
    other = {name: tensor + 0.01 for name, tensor in shipped.items()}
    save_file(other, folder / "other.safetensors")
    torch.manual_seed(0)
    for name in ("one", "two"):
        model = timm.create_model("test_vit", num_classes=0)
        save_file(model.state_dict(), folder / f"timm-{name}.safetensors")
    save_file(
        {n: t.half().float() for n, t in model.state_dict().items()}, folder / "timm-3.safetensors"
    )
    save_file({n: t.half() for n, t in model.state_dict().items()}, folder / "timm-4.safetensors")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    vit = transformers.ViTModel(transformers.ViTConfig(**tower))
    size = {"height": 32, "width": 32}
    for name, more in {"a": {}, "b": {}, "act": {"hidden_act": "relu"}, "mean": {}}.items():
        vit.config.update({"hidden_act": "gelu", **more})
        vit.save_pretrained(folder / name)
        mean = [0.4 if name == "mean" else 0.5] * 3
        transformers.ViTImageProcessor(size=size, image_mean=mean).save_pretrained(folder / name)
    save_file(
        {f"tower.{n}": t + 0.01 for n, t in vit.state_dict().items()}, folder / "vit.safetensors"
    )
    return folder


SETTINGS = {
    ("", "backbone"): None,  # each kind's own settings below
    ("", "adapter"): None,
    ("", "classes"): [("classes", list(reversed(world.CLASSES)), {"classes"})],
    ("", "task"): None,  # its outputs are what `classes` says; regression's: test_regression.py
    # The arithmetic's rounding, which differs between processors anyway.
    ("", "precision"): [("precision", "bfloat16", set())],
    ("", "device"): [("device", "cpu", set())],
    ("lora", "kind"): None,  # there is one
    ("lora", "rank"): [("adapter.rank", 4, {"tensors", "adapter"})],
    ("lora", "alpha"): [("adapter.alpha", 8.0, {"adapter"})],
    ("lora", "targets"): [
        ("adapter.targets", ["qkv", "proj"], {"tensors", "adapter"}),
        # Their order, and naming one twice, changes nothing.
        ("adapter.targets", ["qkv", "qkv"], set()),
    ],
    ("fleet_vit", "kind"): [
        (
            "backbone",
            {"kind": "timm_vit", "name": "test_vit", "checkpoint": "{}/timm-one.safetensors"},
            None,
        )
    ],
    ("fleet_vit", "checkpoint"): [
        ("backbone.checkpoint", "{}/other.safetensors", {"weights"}),
        ("backbone.checkpoint", "{}/same.pt", set()),  # the same values in another file
    ],
    ("timm_vit", "kind"): None,  # seen from fleet_vit
    ("timm_vit", "name"): [("backbone.name", "test_vit.r160_in1k", set())],
    ("timm_vit", "checkpoint"): [
        ("backbone.checkpoint", "{}/timm-one.safetensors", {"weights"}),
        ("backbone.checkpoint", "{}/timm-3.safetensors", {"weights"}),
    ],
    ("timm_vit", "image_size"): [
        ("backbone.image_size", 96, {"image_size"}),
        ("backbone.image_size", 160, set()),  # its own
    ],
    ("hf_vision", "kind"): None,
    ("hf_vision", "name"): [
        ("backbone.name", "{}/b", set()),  # the same model in another folder
        ("backbone.name", "{}/act", {"backbone"}),
        ("backbone.name", "{}/mean", {"preprocessing"}),
    ],
    ("hf_vision", "checkpoint"): [("backbone.checkpoint", "{}/vit.safetensors", {"weights"})],
    ("hf_vision", "pooler"): [("backbone.pooler", False, {"backbone", "weights"})],
}
"""By kind and field: a setting changed, and the parts that differ then. A field that is not here fails."""

START = {
    "": {},
    "lora": {},
    "fleet_vit": {},
    "timm_vit": {
        "backbone": {
            "kind": "timm_vit",
            "name": "test_vit",
            "checkpoint": "{}/timm-two.safetensors",
        }
    },
    "hf_vision": {
        "backbone": {"kind": "hf_vision", "name": "{}/a"},
        "adapter": {"kind": "lora", "targets": ["q_proj"]},
    },
}


def test_every_setting_of_a_model_has_a_decision():
    import importlib

    fields = {("", name) for name in ModelConfig.model_fields}
    for package in ("fleetfl.models.backbones", "fleetfl.models.adapters"):
        for kind in available(package):
            config = importlib.import_module(f"{package}.{kind}").Config
            fields |= {(kind, name) for name in config.model_fields}
    assert set(SETTINGS) == fields


def filled(value, folder):
    """`value` with the folder's name in its texts."""
    if isinstance(value, dict):
        return {name: filled(inner, folder) for name, inner in value.items()}
    return value.replace("{}", str(folder)) if isinstance(value, str) else value


def built(kind, folder, change=None):
    settings = {"classes": world.CLASSES, "precision": "float32"}
    settings |= json.loads(json.dumps(START[kind]))
    if change is not None:
        *tables, name = change[0].split(".")
        table = settings
        for each in tables:
            table = table.setdefault(each, {"kind": kind})
        table[name] = change[1]
    return ModelConfig.model_validate(filled(settings, folder)).build().layout


@pytest.fixture(scope="module")
def unchanged(files):
    return {kind: built(kind, files) for kind in START}


@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, change) for (kind, _), changes in SETTINGS.items() for change in changes or ()],
    ids=lambda given: given or "model" if isinstance(given, str) else given[0],
)
def test_a_setting_changes_the_fingerprint_and_is_named_or_has_no_influence(
    kind, change, files, unchanged
):
    ours, other = unchanged[kind], built(kind, files, change)
    said = ours.objection(other.fingerprint, other.parts, ours="the server's")
    named = {name for name in ("tensors", *PARTS) if f"{name} (the server's: " in said}
    expected = change[2]
    if expected is None:
        assert {"backbone", "weights"} <= named
        return
    assert named == expected
    assert (ours == other) == (not expected)


def test_the_same_weights_in_another_order_format_and_dtype_are_the_same():
    half = {"b": torch.tensor([1.5, -2.0]).half(), "a": torch.tensor([[3.0]])}
    again = {"a": half["a"].double(), "b": half["b"].bfloat16()}
    assert weights_sha256(half) == weights_sha256(again)
    assert weights_sha256(half) != weights_sha256({**half, "b": half["b"] + 1})
    assert weights_sha256(half) != weights_sha256({**half, "a": torch.tensor([3.0])})


# Files.


def test_an_adapter_file_carries_the_meaning_and_its_bytes_follow_from_it(tmp_path):
    vector = np.arange(OURS.size, dtype=np.float32)
    write_adapter(tmp_path / "a.safetensors", OURS, vector, version=3, about="x")
    layout, values = read_adapter(tmp_path / "a.safetensors")
    assert layout == OURS
    assert (layout.fingerprint, digest(values)) == (OURS.fingerprint, digest(vector))
    contents = {adapter_bytes(OURS, vector, version=3, about="x", more=[1]) for _ in range(8)}
    assert len(contents) == 1


@pytest.mark.parametrize("meaning", ["[[", '{"colour": 1}', '["classes"]', "[" * 100_000, "7"])
def test_an_odd_meaning_is_an_error_that_names_the_file(tmp_path, meaning):
    from safetensors.numpy import save_file as save_arrays

    save_arrays(TENSORS, tmp_path / "odd.safetensors", metadata={"meaning": meaning})
    with pytest.raises(AdapterFileError, match=r"odd\.safetensors"):
        read_adapter(tmp_path / "odd.safetensors")


# Older versions.


def test_an_older_release_can_be_gone_back_to(update_of):
    server = coordinator()
    vector = np.arange(OURS.size, dtype=np.float32)
    body = decoder("float32", OURS).encode(vector)
    rollback = Rollback("b", "one", 0, OURS.plain.fingerprint, digest(vector), "float32", body)
    assert server.roll_back(rollback).released
    other = replace(rollback, layout=other_in("classes").fingerprint)
    assert server.roll_back(other).reason == Refusal.LAYOUT


def test_updates_of_the_time_before_count_as_far_as_releases_said_nothing_either(update_of):
    server = coordinator()
    server.last_without_meaning = 0
    assert server.submit(replace(update_of(OURS.plain), parts=b"")).verdict == "accepted"
    again = coordinator()
    again.restore(server.snapshot())
    assert again.last_without_meaning == 0
    assert again.submit(update_of(OURS, sequence=1)).released
    late = replace(update_of(OURS.plain, sequence=2, base_version=1), parts=b"")
    assert again.submit(late).reason == Refusal.LAYOUT


# Bytes.


def test_an_update_of_the_default_model_is_one_packet(model_config, tmp_path):
    """38,794 values trained on real frames, with numbers as large as they become in a long life.

    1,400 bytes with the PUBLISH packet's own: it passes a link of 1,500 bytes a packet whole.
    """
    model = model_config.build()
    layout, codec = model.layout, Spectral().build(model.layout)
    assert layout.size == 38_794
    labels = np.arange(64) % 10
    frames = Frames(world.render(labels, seed=1), labels.astype(np.int64), 0.0, 1.0)
    training = Trainer(TrainerConfig(local_steps=2, batch_size=32), model)
    delta = training.train(model.vector(), frames, seed=1).delta
    update = Update(
        vehicle="drone-0001",
        boot="x3F-a0",
        sequence=60_000,
        base_version=60_000,
        layout=layout.fingerprint,
        num_examples=320,
        local_steps=10,
        captured_from=1_900_000_000,
        captured_to=1_900_000_060,
        loss=0.5,
        codec="spectral",
        body=codec.encode(delta),
        generation="10-a1b2c3",
        parts=layout.parts,
        base_sha256=bytes(8),
    )
    frame = wire.encode(update, Signer.from_file("demo", tmp_path / "key.pem"))
    topic = topics.update("demo", update.vehicle, 1)
    assert mqtt_publish_bytes(topic, len(frame)) <= 1_400
