"""Backbone, adapter and head as one module whose trainable part is one flat vector."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from fleetfl.models import ModelConfig, ModelError
from fleetfl.models.backbones import Backbone
from fleetfl.models.devices import chosen_device, chosen_dtype
from fleetfl.models.kept_patches import KeptPatches
from fleetfl.models.low_rank import LowRankLinear
from fleetfl.models.stacked import Linear
from fleetfl.models.weights_file import weights_sha256
from fleetfl.vectors import Layout

RESIZED = "bilinear"
"""Interpolation by which pictures are stretched to the model's square, with antialiasing."""


def meaning_of(config: ModelConfig, backbone: Backbone) -> dict[str, Any]:
    """Facts that the values of adapter and head depend on, as plain values by the names in `vectors.PARTS`.

    The precision of the arithmetic is no part of it: it changes results by rounding only.
    """
    architecture = backbone.architecture
    if architecture is None:
        architecture = config.backbone.model_dump(mode="json")
    return {
        "classes": list(config.built_task.outputs),
        "backbone": dict(architecture),
        "weights": backbone.weights_sha256 or weights_sha256(backbone.module.state_dict()),
        "image_size": backbone.image_size,
        "preprocessing": {
            "mean": [float(value) for value in backbone.mean],
            "std": [float(value) for value in backbone.std],
            "resize": RESIZED,
        },
        "adapter": config.adapter.meaning(),
    }


class AdaptedModel(nn.Module):
    """Backbone, adapter and head: uint8 images in, logits out; adapter and head as one vector, float32
    [P].
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        backbone = config.backbone.build()
        meaning = meaning_of(config, backbone)  # before the adapter is in it
        self.backbone, self.image_size = backbone.module.eval(), backbone.image_size
        self.backbone.requires_grad_(False)
        config.adapter.attach(self.backbone, torch.Generator().manual_seed(seed))
        self.task = config.built_task
        self.head = Linear(backbone.num_features, len(self.task.outputs))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        tensors = {n: p.detach().numpy() for n, p in self.named_parameters() if p.requires_grad}
        self.layout = Layout.of(tensors, meaning)
        self.device = chosen_device(config.device)
        self.dtype = chosen_dtype(config.precision, self.device)
        self.to(self.device)
        self.mean = (torch.tensor(backbone.mean)[:, None, None] * 255).to(self.device)
        self.std = (torch.tensor(backbone.std)[:, None, None] * 255).to(self.device)
        self.trainable = {n: p for n, p in self.named_parameters() if p.requires_grad}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] -> logits, float32 [B, C]."""
        return self.head(self.features(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] -> the features that the head reads, float32 [B, D]."""
        return self._features(self.scaled(images))

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] -> pixels of the model's size before normalization, float32 [B, 3, S, S].

        Needs no weights: other threads may call it while new ones are loaded.
        """
        pixels = self.placed(images).permute(0, 3, 1, 2).float()
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = functional.interpolate(pixels, size, mode=RESIZED, antialias=True)
        return pixels

    def placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same values on the model's device; from pinned memory, without waiting, if that is a GPU."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        is_plain = self.dtype == torch.float32
        cast = (
            contextlib.nullcontext() if is_plain else torch.autocast(self.device.type, self.dtype)
        )
        with cast:
            return self.backbone((pixels - self.mean) / self.std).float()

    @contextlib.contextmanager
    def patch_dropout(self, share: float, generators: Sequence[torch.Generator]) -> Iterator[None]:
        """Context in which images keep only a share of their patches, drawn from the generators.

        Each generator draws for an equal part of a batch: the first one for its first images, and so on.
        Raises ModelError if `share` is below 1 and the backbone is none of timm's.
        """
        if share == 1:
            yield
            return
        if not hasattr(self.backbone, "patch_drop"):
            kind = type(self.backbone).__name__
            raise ModelError(
                f"patch_keep_rate {share}: {kind} cannot leave patches out, expected 1"
            )
        outside = self.backbone.patch_drop
        prefix = int(getattr(self.backbone, "num_prefix_tokens", 0))
        self.backbone.patch_drop = KeptPatches(share, prefix, generators)
        try:
            yield
        finally:
            self.backbone.patch_drop = outside

    def stacked_logits(
        self, stacks: Mapping[str, torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        """uint8 [V * B, H, W, 3] -> logits, float32 [V * B, C]: B images by each of V adapters.

        `stacks` are the trainable tensors with V in front. The frozen layers take all as one batch.
        """
        return functional_call(self, dict(stacks), (images,))

    def vector(self) -> np.ndarray:
        """The trainable values, float32 [P]."""
        return self.layout.flatten({n: p.detach().cpu().numpy() for n, p in self.trainable.items()})

    def load(self, vector: np.ndarray) -> None:
        """Put a vector, float32 [P], in place. Raises ValueError for another length."""
        tensors = self.layout.unflatten(vector)
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                # A copy: arrays that crossed Ray are read-only, which torch does not accept.
                parameter.copy_(torch.from_numpy(tensors[name].copy()))

    def merged(self) -> dict[str, torch.Tensor]:
        """Weights of a plain network: the backbone's, with adapters folded in, and `head.*`."""
        plain = copy.deepcopy(self.backbone)
        for name, module in list(plain.named_modules()):
            if isinstance(module, LowRankLinear):
                parent, _, leaf = name.rpartition(".")
                setattr(plain.get_submodule(parent), leaf, module.folded())
        head = {f"head.{name}": weight for name, weight in self.head.state_dict().items()}
        return {**plain.state_dict(), **head}

    @torch.no_grad()
    def predictions(self, images: np.ndarray, *, batch: int = 256) -> np.ndarray:
        """The task's predictions for images, uint8 [B, H, W, 3]: float32 [B, K].

        Of classification these are probabilities, rows summing to 1.
        """
        if not len(images):
            return self.task.predictions(torch.zeros(0, len(self.task.outputs))).numpy()
        rows = [
            self.answers(self.scaled(torch.from_numpy(images[i : i + batch])))
            for i in range(0, len(images), batch)
        ]
        return np.concatenate(rows)

    @torch.no_grad()
    def answers(self, pixels: torch.Tensor) -> np.ndarray:
        """Predictions, float32 [B, K], for what `scaled` gave, float32 [B, 3, S, S]."""
        return self.task.predictions(self.head(self._features(pixels))).cpu().numpy()
