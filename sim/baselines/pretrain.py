"""Make the shipped backbone: supervised on clear weather only, photographs and drone world together.

    python -m sim.baselines.pretrain --cifar cifar10_20k.npz --out fleet_vit.fp16.safetensors

Two heads share the ViT while it learns and are thrown away after. Half of the patches are left out
for most of the steps (PatchDropout, arXiv:2208.07220): twice the steps in the same time, and a
regulariser that 10,000 photographs need.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from timm.layers.patch_dropout import PatchDropout
from torch import nn
from torch.nn import functional

from fleetfl.models.backbones.fleet_vit import WEIGHTS, architecture
from fleetfl.models.devices import chosen_dtype
from sim.world import CLASSES, render

PHOTO_CLASSES = 10
REPORT_STEPS = 100
"""Steps between two lines of progress."""
TEST_STEPS = 1000
"""Steps between two measurements of the held-out accuracy."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of the pretraining; together with the data they determine the weights."""

    seed: int = 20261122
    photographs: int = 10_000
    """Number of photographs used, from the beginning of the training set."""
    world_frames: int = 20_000
    steps: int = 4_000
    whole_steps: int = 800
    """Number of final steps that see every patch; earlier steps drop `patch_drop` of them."""
    batch: int = 128
    photo_share: float = 0.65
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 200
    label_smoothing: float = 0.1
    patch_drop: float = 0.5


class TwoHeads(nn.Module):
    """The backbone with one linear head over photograph classes and drone-world classes."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.trunk = architecture()
        self.trunk.patch_drop = PatchDropout(recipe.patch_drop, num_prefix_tokens=0)
        self.head = nn.Linear(self.trunk.num_features, PHOTO_CLASSES + len(CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 64, 64, 3] -> logits over photo classes, then world classes, float32 [B, 20]."""
        pixels = images.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        dtype = chosen_dtype("auto", images.device)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            tokens = self.trunk(pixels)
        return self.head(tokens.float())


def to_64(photographs: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] -> uint8 [N, 64, 64, 3], bilinear."""
    pixels = torch.from_numpy(photographs).permute(0, 3, 1, 2).float()
    large = functional.interpolate(pixels, (64, 64), mode="bilinear", antialias=True)
    return large.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image mirrored with chance 1/2 and shifted by up to 8 pixels, edges repeated."""
    n, height, width, _ = images.shape
    flip = torch.rand(n, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(2), images)
    shift = torch.randint(-8, 9, (2, n), generator=generator)
    rows = (torch.arange(height) + shift[0][:, None]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[1][:, None]).clamp(0, width - 1)
    each = torch.arange(n)[:, None, None]
    return images[each, rows[:, :, None], columns[:, None, :]]


def accuracy(
    model: TwoHeads, images: np.ndarray, labels: np.ndarray, first: int, last: int
) -> float:
    """Share of `images` whose best of the logits [first, last) is their label."""
    right = 0
    with torch.no_grad():
        for i in range(0, len(images), 250):
            logits = model(torch.from_numpy(images[i : i + 250]))[:, first:last]
            right += int((logits.argmax(1).numpy() == labels[i : i + 250]).sum())
    return right / len(images)


@dataclass(frozen=True)
class Photographs:
    """Photographs from a CIFAR-like file, as 64 x 64 pixels: to train on, and held out."""

    images: np.ndarray
    """Training images, uint8 [N, 64, 64, 3]."""
    labels: np.ndarray
    """Classes of the training images, int64 [N]."""
    test_images: np.ndarray
    """Held-out images, uint8 [M, 64, 64, 3]."""
    test_labels: np.ndarray
    """Classes of the held-out images, int64 [M]."""

    @classmethod
    def load(cls, path: Path, count: int) -> "Photographs":
        """The first `count` training images of the npz file, and all of its held-out images."""
        with np.load(path) as data:
            return cls(
                to_64(data["x_train"][:count]),
                data["y_train"][:count].astype(np.int64),
                to_64(data["x_test"]),
                data["y_test"].astype(np.int64),
            )


def pretrain(cifar: Path, recipe: Recipe, out: Path) -> dict[str, float]:
    """Train, write fp16 weights to `out`, give the held-out clear-weather accuracies (fractions)."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    photos = Photographs.load(cifar, recipe.photographs)
    world_labels = rng.integers(0, len(CLASSES), recipe.world_frames)
    world = render(world_labels, seed=recipe.seed)
    test_world_labels = rng.integers(0, len(CLASSES), 2_000)
    test_world = render(test_world_labels, seed=recipe.seed + 1)

    images = torch.from_numpy(np.concatenate([photos.images, world]))
    labels = torch.from_numpy(np.concatenate([photos.labels, world_labels + PHOTO_CLASSES]))
    model = TwoHeads(recipe)
    optimizer = _optimizer(model, recipe)
    num_photos = round(recipe.batch * recipe.photo_share)

    def scores() -> dict[str, float]:
        model.eval()
        result = {
            "photographs": accuracy(
                model, photos.test_images, photos.test_labels, 0, PHOTO_CLASSES
            ),
            "world": accuracy(model, test_world, test_world_labels, PHOTO_CLASSES, 20),
        }
        model.train()
        return result

    began, running = time.monotonic(), 0.0
    for step in range(recipe.steps):
        if step == recipe.steps - recipe.whole_steps:
            model.trunk.patch_drop = nn.Identity()
        chosen = np.concatenate(
            [
                rng.integers(0, len(photos.images), num_photos),
                len(photos.images) + rng.integers(0, len(world), recipe.batch - num_photos),
            ]
        )
        logits = model(augmented(images[chosen], generator))
        loss = _loss(logits, labels[chosen], num_photos, recipe)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(step, recipe)
        optimizer.zero_grad()
        (loss / recipe.batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += loss.item() / recipe.batch
        if (step + 1) % REPORT_STEPS == 0:
            test = scores() if (step + 1) % TEST_STEPS == 0 else ""
            _report(step + 1, recipe, time.monotonic() - began, running / REPORT_STEPS, test)
            running = 0.0
    result = scores()
    _write(model, out, recipe, result)
    return result


def _optimizer(model: TwoHeads, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices only: biases and norms keep their scale."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain}],
        lr=recipe.learning_rate,
        weight_decay=0.0,
    )


def _rate(step: int, recipe: Recipe) -> float:
    """Share of the learning rate at `step`: linear warm-up, then half a cosine down to 0."""
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return step / recipe.warmup if step < recipe.warmup else 0.5 * (1 + np.cos(np.pi * done))


def _loss(
    logits: torch.Tensor, labels: torch.Tensor, num_photos: int, recipe: Recipe
) -> torch.Tensor:
    """Summed cross-entropy; each image competes among the classes of its own data set only."""
    return functional.cross_entropy(
        logits[:num_photos, :PHOTO_CLASSES],
        labels[:num_photos],
        label_smoothing=recipe.label_smoothing,
        reduction="sum",
    ) + functional.cross_entropy(
        logits[num_photos:, PHOTO_CLASSES:],
        labels[num_photos:] - PHOTO_CLASSES,
        label_smoothing=recipe.label_smoothing,
        reduction="sum",
    )


def _report(
    done: int, recipe: Recipe, spent_s: float, loss: float, test: dict[str, float] | str
) -> None:
    left_s = spent_s / done * (recipe.steps - done)
    print(
        f"step {done}/{recipe.steps}  loss {loss:.3f}  "
        f"{recipe.batch * done / spent_s:.0f} images/s  {left_s / 60:.1f} min left  {test}",
        flush=True,
    )


def _write(model: TwoHeads, out: Path, recipe: Recipe, result: dict[str, float]) -> None:
    """Write the trunk's weights as float16 safetensors, with recipe and scores in the metadata."""
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = {n: w.detach().half().contiguous() for n, w in model.trunk.state_dict().items()}
    save_file(weights, out, metadata={"recipe": repr(recipe), "scores": repr(result)})


def main() -> None:
    """Command line: pretrain on the given photographs and print the held-out accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--cifar", type=Path, required=True, help="npz: x_train, y_train, x_test, y_test"
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps, whole_steps=arguments.steps // 5)
    for name, value in pretrain(arguments.cifar, recipe, arguments.out).items():
        print(f"clear weather, held out: {name} {value:.1%}")


if __name__ == "__main__":
    main()
