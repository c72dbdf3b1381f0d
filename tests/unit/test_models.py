"""Backbones, adapters, checkpoints, and the model's vector."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fleetfl.models import ModelConfig, ModelError
from fleetfl.models.backbones.fleet_vit import WEIGHTS, architecture
from fleetfl.models.weights_file import load_into
from sim import world

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model(model_config):
    return model_config.build(seed=1)


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


def test_only_adapter_and_head_are_trained(model):
    """LoRA r=8 on 6 qkv of 192 -> 576: 6 * 8 * (192 + 576) = 36,864; head 10 * 192 + 10 = 1,930."""
    assert model.layout.size == 36_864 + 1_930
    assert all("lora" in n or n.startswith("head") for n in model.trainable)


def test_shipped_weights_are_small_and_the_model_has_64_tokens():
    assert WEIGHTS.stat().st_size <= 8e6
    assert architecture().pos_embed.shape == (1, 64, 192)
    assert 2e6 < sum(p.numel() for p in architecture().parameters()) < 3e6


def test_vector_round_trip_and_read_only_input(model):
    vector = np.random.default_rng(1).normal(size=model.layout.size).astype(np.float32)
    vector.flags.writeable = False
    model.load(vector)
    np.testing.assert_array_equal(model.vector(), vector)


def test_adapter_starts_without_effect(model_config):
    fresh = model_config.build(seed=1)
    bare = model_config.backbone.build()
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float()
    expected = bare.module.eval()((pixels - 127.5) / 127.5)
    np.testing.assert_allclose(
        fresh.features(torch.from_numpy(IMAGES)).detach(), expected.detach(), atol=1e-4
    )


def test_same_seed_same_start(model_config):
    first, again, other = (model_config.build(seed=s).vector() for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_low_rank_sum_by_hand():
    """W = 0, A = [1 2], B = [3], alpha/rank = 4: x = [5, 6] gives 4 * 3 * (5 + 12) = 204."""
    from fleetfl.models.low_rank import LowRankLinear

    frozen = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(frozen.weight)
    layer = LowRankLinear(frozen, 1, 4.0, torch.Generator())
    with torch.no_grad():
        layer.lora_a.copy_(torch.tensor([[1.0, 2.0]]))
        layer.lora_b.copy_(torch.tensor([[3.0]]))
    assert layer(torch.tensor([[5.0, 6.0]])).item() == 204


def test_probabilities_of_any_size_sum_to_one(model):
    images = np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), np.uint8)
    rows = model.predictions(images, batch=2)
    assert rows.shape == (5, 10)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert model.predictions(images[:0]).shape == (0, 10)


def test_unknown_target_names_what_there_is():
    config = ModelConfig.model_validate(
        {"classes": world.CLASSES, "adapter": {"kind": "lora", "targets": ["query"]}}
    )
    with pytest.raises(ModelError, match=r"query.*fc1.*qkv"):
        config.build()


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.safetensors is missing"):
        load_into(architecture(), tmp_path / "gone.safetensors")


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        load_into(architecture(), damaged)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    with pytest.raises(ModelError, match="does not fit"):
        load_into(architecture(), foreign)


def test_pickles_are_not_run(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "trap.pt"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ModelError):
        load_into(architecture(), path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        ({"kind": "timm_vit", "name": "vit_smal_patch14"}, "knows no model 'vit_smal_patch14'"),
        (
            {"kind": "timm_vit", "name": "vit_tiny_patch16_224", "checkpoint": "/gone.pt"},
            "/gone.pt",
        ),
    ],
)
def test_unusable_backbones_are_named(backbone, says):
    config = ModelConfig.model_validate({"classes": ["a", "b"], "backbone": backbone})
    with pytest.raises(ModelError, match=says):
        config.build()


def test_a_real_vit_s14_loads_and_adapts(data_dir):
    """Real weights, positions resampled from 37 x 37 to 7 x 7 tokens; LoRA r=8 on 12 qkv of
    384 -> 1152: 12 * 8 * (384 + 1152) = 147,456; head 10 * 384 + 10 = 3,850.
    """
    config = ModelConfig.model_validate(
        {
            "classes": world.CLASSES,
            "precision": "float32",
            "backbone": {
                "kind": "timm_vit",
                "name": "vit_small_patch14_dinov2",
                "checkpoint": data_dir / "vit_small_patch14_dinov2_saliency.fp16.safetensors",
                "image_size": 98,
            },
        }
    )
    model = config.build()
    assert model.layout.size == 147_456 + 3_850
    assert model.image_size == 98
    with np.load(data_dir / "cifar10_20k.npz") as data:
        images, labels = data["x_test"][:300], data["y_test"][:300].astype(np.int64)
    from sim.baselines.initial_model import fit_head

    # The data's own README: a linear probe on 3,000 images reaches 74.5 %. Two hundred are enough
    # to see that these are its features and not noise (chance is 10 %).
    fit_head(model, images[:200], labels[:200])
    right = model.predictions(images[200:]).argmax(axis=1) == labels[200:]
    assert right.mean() > 0.4


@pytest.fixture
def clip_folder(tmp_path):
    """A CLIP of two small layers, random, as `save_pretrained` writes it: both towers."""
    import transformers

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2}
    config = transformers.CLIPConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 8}, text_config=tower
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.2]
    ).save_pretrained(tmp_path)
    return tmp_path


def test_a_clip_folder_gives_its_vision_tower(clip_folder):
    """LoRA r=2 on q_proj of 2 layers, 32 -> 32: 2 * 2 * (32 + 32) = 256; head 2 * 32 + 2 = 66."""
    import transformers

    config = ModelConfig.model_validate(
        {
            "classes": ["a", "b"],
            "precision": "float32",
            "backbone": {"kind": "hf_vision", "name": str(clip_folder)},
            "adapter": {"kind": "lora", "rank": 2, "targets": ["q_proj"]},
        }
    )
    model = config.build()
    assert model.layout.size == 256 + 66
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    pixels = (images.permute(0, 3, 1, 2) / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / 0.2
    tower = transformers.CLIPVisionModel.from_pretrained(clip_folder).eval()
    expected = tower(pixel_values=pixels.float()).pooler_output
    torch.testing.assert_close(model.features(images), expected, atol=1e-4, rtol=1e-4)


def test_a_folder_that_is_no_model_is_named(tmp_path):
    config = ModelConfig.model_validate(
        {"classes": ["a", "b"], "backbone": {"kind": "hf_vision", "name": str(tmp_path)}}
    )
    with pytest.raises(ModelError, match="cannot be made"):
        config.build()
