"""Backbones from elsewhere: what loads, and the one line that says why something does not."""

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fleetfl.models import ModelConfig, ModelError
from fleetfl.models.backbones.fleet_vit import WEIGHTS, architecture
from fleetfl.models.picture_processor import pictures_of
from fleetfl.models.weights_file import load_into

pytestmark = pytest.mark.unit
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TOWER |= {"image_size": 32, "patch_size": 8}
WIDE = {**TOWER, "intermediate_size": 64}
NORMAL = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}


def model(backbone, **adapter):
    settings = {"classes": ["a", "b"], "precision": "float32", "backbone": backbone}
    adapter = {"kind": "lora", "rank": 2, "targets": ["qkv"], **adapter}
    return ModelConfig.model_validate({**settings, "adapter": adapter}).build()


def one_line_of(excinfo, *words):
    text = str(excinfo.value)
    assert "\n" not in text
    assert len(text) < 700
    for word in words:
        assert word in text


# Files in timm's names.


@pytest.fixture(scope="module")
def vit():
    """timm's smallest ViT, random: 0.4 M parameters."""
    import timm

    torch.manual_seed(3)
    return timm.create_model("test_vit", num_classes=0).state_dict()


@pytest.fixture
def timm_vit(tmp_path):
    def make(weights, name="weights.pt", **more):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(weights, path)
        elif weights is not None:
            torch.save(weights, path)
        return model({"kind": "timm_vit", "name": "test_vit", "checkpoint": path, **more})

    return make


HEAD = {"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)}


def prefixed(prefix, weights):
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


WRAPPED = {
    "plain": lambda w: w,
    "a head": lambda w: {**w, **HEAD},
    "state_dict": lambda w: {"state_dict": {**w, **HEAD}, "epoch": 3, "arch": "vit"},
    "timm's training": lambda w: {
        "state_dict": w,
        "args": argparse.Namespace(lr=0.1),
        "version": 2,
    },
    "the average": lambda w: {"state_dict": {n: t + 1 for n, t in w.items()}, "state_dict_ema": w},
    "model": lambda w: {"model": {**w, **HEAD}, "optimizer": {"state": {}}},
    "teacher": lambda w: {
        "student": {n: t + 1 for n, t in w.items()},
        "teacher": prefixed("backbone.", w) | {"head.mlp.weight": torch.ones(2)},
    },
    "nested": lambda w: {"model": {"state_dict": prefixed("module.", w)}},
    "module.": lambda w: prefixed("module.", {**w, **HEAD}),
    "backbone.": lambda w: {**prefixed("backbone.", w), "classifier.weight": torch.ones(2, 64)},
    "model.": lambda w: prefixed("model.", w),
    "all of them": lambda w: {"state_dict": prefixed("_orig_mod.module.backbone.", w)},
    "half": lambda w: {n: t.half().float().half() for n, t in w.items()},
    "bfloat16": lambda w: {n: t.bfloat16() for n, t in w.items()},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_what_training_scripts_write_around_weights_is_taken_off(how, vit, timm_vit):
    rounded = {n: t.bfloat16().half().float() for n, t in vit.items()}  # all dtypes hold these
    expected = timm_vit(rounded, "expected.safetensors")
    found = timm_vit(WRAPPED[how](rounded))
    assert found.layout == expected.layout
    for name, tensor in expected.backbone.state_dict().items():
        assert torch.equal(found.backbone.state_dict()[name], tensor), name


UNFIT = {
    "lacks": (lambda w: {n: t for n, t in w.items() if "blocks.1" not in n}, "lacks blocks.1"),
    "more": (lambda w: w | {"blocks.99.attn.qkv.weight": torch.ones(1)}, "no place for blocks.99"),
    "a step beside": (lambda w: w | {"blocks.0.gate": torch.ones(1)}, "no place for blocks.0.gate"),
    "shape": (lambda w: w | {"norm.weight": torch.ones(9)}, "norm.weight [9] for [64]"),
    "not finite": (
        lambda w: w | {"norm.weight": w["norm.weight"] / 0},
        "not finite in norm.weight",
    ),
    "two": (lambda w: prefixed("a.", w) | prefixed("b.", w), "several"),
    "adapter": (lambda w: {"backbone.blocks.0.attn.qkv.lora_a": torch.ones(2, 2)}, "lacks"),
    "no tensors": (lambda w: {"state_dict": {}, "epoch": 1}, "no weights"),
    "a list": (lambda w: [1, 2], "list"),
    "a tensor": (lambda w: torch.ones(2), "Tensor"),
}


@pytest.mark.parametrize("how", UNFIT)
def test_unfit_weights_are_one_line_that_names_file_and_difference(how, vit, timm_vit):
    change, says = UNFIT[how]
    with pytest.raises(ModelError) as excinfo:
        timm_vit(change(vit))
    one_line_of(excinfo, "weights.pt", says)


def test_another_architecture_is_one_line(timm_vit):
    with pytest.raises(ModelError) as excinfo:
        timm_vit(load_file(WEIGHTS))
    one_line_of(excinfo, "weights.pt", "VisionTransformer")


class Trap:
    """A pickle that would run code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


BROKEN = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "cut at the header": lambda whole: whole[:5],
    "page": lambda whole: b"<!DOCTYPE html><html>404</html>",
    "pointer": lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "text": lambda whole: b"not found\n" * 50,
    "huge header": lambda whole: b"\xff" * 64,
    "nested header": lambda whole: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "pickle of numbers": lambda whole: pickle.dumps([1] * 5),
}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("how", BROKEN)
def test_damaged_files_are_one_line(how, suffix, vit, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(vit, path)
    else:
        save_file(vit, path)
    path.write_bytes(BROKEN[how](path.read_bytes()))
    with pytest.raises(ModelError) as excinfo:
        load_into(architecture(), path)
    one_line_of(excinfo, path.name)


@pytest.mark.parametrize("name", ["trap.pt", "trap.safetensors", "trap.bin"])
def test_code_in_a_checkpoint_is_never_run(name, vit, tmp_path):
    path = tmp_path / name
    torch.save({"state_dict": vit, "callback": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(ModelError) as excinfo:
        load_into(architecture(), path)
    one_line_of(excinfo, name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_what_is_no_file_is_one_line_and_nobody_waits(make, tmp_path):
    path = tmp_path / "weights.pt"
    path.mkdir() if make == "mkdir" else os.mkfifo(path)
    with pytest.raises(ModelError, match=r"weights\.pt"):
        load_into(architecture(), path)


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        ({"kind": "timm_vit", "name": "test_resnet", "image_size": 64}, "test_resnet"),
        ({"kind": "fleet_vit", "checkpoint": "/gone.safetensors"}, "/gone.safetensors"),
        ({"kind": "hf_vision", "name": "/gone"}, "/gone"),
    ],
)
def test_settings_that_make_no_model_are_one_line(backbone, says):
    with pytest.raises(ModelError) as excinfo:
        model(backbone)
    one_line_of(excinfo, says)


def test_positions_are_resampled_and_the_fingerprint_is_of_what_came(vit, timm_vit):
    native, small = timm_vit(vit), timm_vit(vit, image_size=96)
    assert small.backbone.pos_embed.shape != native.backbone.pos_embed.shape
    weights = [dict(each.layout.meaning)["weights"] for each in (native, small)]
    assert weights[0] == weights[1]
    assert native.layout.fingerprint != small.layout.fingerprint


def test_a_merged_export_is_a_backbone_again(tmp_path, vit, timm_vit):
    """The adapter is folded in: the same features as before, of a plain network."""
    for name, made in {
        "timm_vit": timm_vit(vit),
        "fleet_vit": model({"kind": "fleet_vit"}),
    }.items():
        rng = np.random.default_rng(0)
        made.load(rng.normal(0, 0.05, made.layout.size).astype(np.float32))
        path = tmp_path / f"{name}.safetensors"
        save_file({n: t.contiguous() for n, t in made.merged().items()}, path)
        more = {"name": "test_vit"} if name == "timm_vit" else {}
        again = model({"kind": name, "checkpoint": path, **more})
        torch.testing.assert_close(
            again.features(IMAGES), made.features(IMAGES), atol=1e-3, rtol=1e-3
        )


def test_hub_weights_resampled_later_are_those_of_a_file(vit, timm_vit, tmp_path, monkeypatch):
    """timm finds the hub's file where its settings name a local one."""
    import timm

    save_file(vit, tmp_path / "hub.safetensors")
    made = timm.create_model

    def offline(name, *, pretrained, **options):
        overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "hub.safetensors")}}
        return made(name, pretrained=pretrained, **options, **(overlay if pretrained else {}))

    monkeypatch.setattr(timm, "create_model", offline)
    for size in (None, 96):
        hub = model({"kind": "timm_vit", "name": "test_vit", "image_size": size})
        local = timm_vit(vit, image_size=size)
        assert hub.layout == local.layout
        for name, tensor in local.backbone.state_dict().items():
            assert torch.equal(hub.backbone.state_dict()[name], tensor), name


def test_the_real_half_precision_file_and_its_wrapped_copies_are_one_model(data_dir, tmp_path):
    path = data_dir / "vit_small_patch14_dinov2_saliency.fp16.safetensors"
    weights = {n: t.float() for n, t in load_file(path).items()}
    copy = tmp_path / "training.pt"
    head = {"head.weight": torch.ones(3, 384)}
    torch.save({"teacher": prefixed("module.backbone.", weights | head)}, copy)
    about = {"kind": "timm_vit", "name": "vit_small_patch14_dinov2", "image_size": 98}
    layouts = [model({**about, "checkpoint": each}).layout for each in (path, copy)]
    assert layouts[0] == layouts[1]


# Folders of transformers.


def vision(family):
    import transformers as t

    return {
        "vit": lambda: t.ViTModel(t.ViTConfig(**WIDE)),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**TOWER)),
        "clip": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**WIDE)),
        "siglip": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**WIDE)),
    }[family]()


FAMILIES = ("vit", "dinov2", "clip", "siglip")


def save_processor(folder, **settings):
    about = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    about |= {"do_normalize": True, "do_rescale": True, "do_resize": True, **NORMAL, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))


@pytest.fixture
def folder_of(tmp_path):
    def make(network, name="model", **settings):
        folder = tmp_path / name
        network.save_pretrained(folder)
        save_processor(folder, **settings)
        return folder

    return make


def hf(folder, family="vit", **more):
    return model({"kind": "hf_vision", "name": str(folder), **more}, targets=[targets_of(family)])


def targets_of(family):
    """transformers 5 has renamed some of these layers."""
    names = {n.split(".")[-1] for n, _ in vision(family).named_modules()}
    return "q_proj" if "q_proj" in names else "query"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_folders_are_their_values_in_float32(family, dtype, folder_of):
    network = vision(family).to(dtype)
    half, whole = folder_of(network, "half"), folder_of(network.float(), "whole")
    assert json.loads((half / "config.json").read_text())["dtype"] == str(dtype).split(".")[-1]
    found, expected = hf(half, family), hf(whole, family)
    assert found.layout == expected.layout
    assert next(found.backbone.parameters()).dtype == torch.float32
    assert torch.equal(found.features(IMAGES), expected.features(IMAGES))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda x: (x / 255 - torch.tensor([0.4, 0.5, 0.6])) / 0.2),
        ({"do_normalize": False}, lambda x: x / 255),
        ({"do_normalize": False, "do_rescale": False}, lambda x: x),
        (
            {"rescale_factor": 1 / 127.5},
            lambda x: (x / 127.5 - torch.tensor([0.4, 0.5, 0.6])) / 0.2,
        ),
        ({"image_mean": 0.5, "image_std": 0.5}, lambda x: x / 127.5 - 1),
    ],
)
def test_a_processor_is_honoured(settings, expected, folder_of):
    network = vision("vit").eval()
    made = hf(folder_of(network, **settings))
    pixels = expected(IMAGES.float()).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(
            made.features(IMAGES), network(pixel_values=pixels).pooler_output, atol=1e-4, rtol=1e-3
        )


def test_a_model_that_resamples_gets_the_pictures_that_its_processor_makes(folder_of):
    """As facebook/dinov2-base: positions for 518 pixels, pictures of 224."""
    folder = folder_of(
        vision("dinov2"),
        image_processor_type="BitImageProcessor",
        size={"shortest_edge": 28},
        do_center_crop=True,
        crop_size={"height": 24, "width": 24},
    )
    assert hf(folder, "dinov2").image_size == 24


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": 32}, 32),
        ({"size": {"shortest_edge": 32}}, 32),
        ({"size": {"height": 32, "width": 32}}, 32),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, 32),
        (
            {
                "size": {"shortest_edge": 32},
                "do_center_crop": True,
                "crop_size": {"height": 24, "width": 24},
            },
            32,
        ),
        (
            {
                "size": {"shortest_edge": 40},
                "do_center_crop": True,
                "crop_size": {"height": 24, "width": 24},
            },
            24,
        ),
        ({"size": {"height": 48, "width": 48}}, 48),
        ({"size": 99, "do_resize": False}, 32),
    ],
)
def test_sizes_of_processors(processor, size):
    assert pictures_of({**NORMAL, **processor}, 32, "it").size == size


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ({"size": {"height": 32, "width": 48}}, "size"),
        ({"size": {"longest_edge": 32}}, "size"),
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "size"),
        ({"size": {"max_height": 32, "max_width": 32}}, "size"),
        ({"size": "big"}, "size"),
        (
            {"size": 40, "do_center_crop": True, "crop_size": {"height": 32, "width": 24}},
            "crop_size",
        ),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_mean": None}, "image_mean"),
        ({"image_std": [0.5, 0.5]}, "image_std"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
        ({"image_std": ["a", "b", "c"]}, "image_std"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"rescale_factor": None}, "rescale_factor"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"do_pad": True}, "do_pad"),
        ({"rescale_offset": True}, "rescale_offset"),
    ],
)
def test_what_a_processor_does_and_ours_does_not_is_refused_by_name(processor, name):
    with pytest.raises(ModelError, match=rf"it: .*{name}"):
        pictures_of({"size": 32, **NORMAL, **processor}, 32, "it")


def test_pictures_that_a_model_does_not_take_are_one_line(folder_of):
    folder = folder_of(vision("clip"), size={"height": 64, "width": 64})
    with pytest.raises(ModelError) as excinfo:
        hf(folder, "clip")
    one_line_of(excinfo, str(folder), "64 x 64")


def test_a_pooler_that_the_checkpoint_lacks_is_an_error_or_left_out(folder_of):
    import transformers

    network = transformers.ViTForImageClassification(transformers.ViTConfig(**WIDE))
    folder = folder_of(network)
    with pytest.raises(ModelError) as excinfo:
        hf(folder)
    one_line_of(excinfo, str(folder), "pooler.dense.weight", "pooler: false")
    made = hf(folder, pooler=False)
    pixels = (IMAGES / 255 - torch.tensor([0.4, 0.5, 0.6])) / 0.2
    with torch.no_grad():
        out = network.vit.eval()(pixel_values=pixels.permute(0, 3, 1, 2).float())
        torch.testing.assert_close(made.features(IMAGES), out.last_hidden_state[:, 0])


def test_a_pooler_that_is_not_there_cannot_be_left_out(folder_of):
    with pytest.raises(ModelError, match="pooler"):
        hf(folder_of(vision("clip")), "clip", pooler=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_a_folder_lacks_are_named(family, folder_of):
    folder = folder_of(vision(family))
    path = folder / "model.safetensors"
    weights = load_file(path)
    gone = sorted(weights)[-1]
    del weights[gone]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as excinfo:
        hf(folder, family)
    one_line_of(excinfo, str(folder), gone.rpartition(".")[0].removeprefix("vision_model."))


def test_weights_of_another_shape_and_deeper_ones_are_named(folder_of):
    folder = folder_of(vision("vit"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    layer = next(n for n in weights if ".0." in n)
    save_file(
        weights | {layer.replace(".0.", ".7."): torch.ones(2)}, path, metadata={"format": "pt"}
    )
    with pytest.raises(ModelError) as excinfo:
        hf(folder)
    one_line_of(excinfo, str(folder), "no place for")
    save_file(weights | {layer: torch.ones(9)}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as excinfo:
        hf(folder)
    one_line_of(excinfo, str(folder))


SPOILED = {
    "empty": lambda folder: [each.unlink() for each in folder.iterdir()],
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no processor": lambda folder: (folder / "preprocessor_config.json").unlink(),
    "cut weights": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "a page": lambda folder: (folder / "model.safetensors").write_text("<html>404</html>"),
    "config is no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config is a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config is nested": lambda folder: (folder / "config.json").write_text("[" * 100_000),
    "no such kind": lambda folder: (folder / "config.json").write_text('{"model_type": "new"}'),
    "text model": lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
    "processor is no JSON": lambda folder: (folder / "preprocessor_config.json").write_text("x"),
    "odd processor": lambda folder: (folder / "preprocessor_config.json").write_text("{}"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_spoiled_folders_are_one_line(how, folder_of):
    folder = folder_of(vision("vit"))
    SPOILED[how](folder)
    with pytest.raises(ModelError) as excinfo:
        hf(folder)
    one_line_of(excinfo, str(folder))


def test_a_model_that_draws_by_chance_is_refused(folder_of):
    import transformers

    network = transformers.ViTMAEModel(transformers.ViTMAEConfig(**WIDE))
    with pytest.raises(ModelError) as excinfo:
        hf(folder_of(network))
    one_line_of(excinfo, "by chance")


PROCESS = """
import json, sys, torch
torch.manual_seed(6)
sys.path.insert(0, sys.argv[1])
from test_backbones import bits_of
for config in json.loads(sys.argv[2]):
    print(*bits_of(config))
"""


def bits_of(config):
    """The fingerprint, and the SHA-256 of all weights, frozen and not."""
    made = ModelConfig.model_validate(config).build(seed=1)
    frozen = b"".join(t.numpy().tobytes() for t in made.backbone.state_dict().values())
    whole = hashlib.sha256(frozen + made.vector().tobytes()).hexdigest()
    return made.layout.fingerprint.hex(), whole


def test_two_processes_hold_the_same_bits(vit, folder_of, tmp_path):
    """With other states of torch's chance, and imports of their own."""
    torch.save(prefixed("module.", vit), tmp_path / "weights.pt")
    timm = {"kind": "timm_vit", "name": "test_vit", "checkpoint": str(tmp_path / "weights.pt")}
    clip = {"kind": "hf_vision", "name": str(folder_of(vision("clip")))}
    configs = [
        {
            "classes": ["a", "b"],
            "backbone": backbone,
            "adapter": {"kind": "lora", "targets": [name]},
        }
        for backbone, name in ((timm, "qkv"), (clip, targets_of("clip")))
    ]
    torch.manual_seed(5)
    here = str(Path(__file__).parent)
    other = subprocess.run(
        [sys.executable, "-c", PROCESS, here, json.dumps(configs)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    expected = [" ".join(bits_of(config)) for config in configs]
    assert other.stdout.splitlines()[-2:] == expected
