"""Weights from a file into a module. No pickle: safetensors, or torch files read as weights only."""

from pathlib import Path
from pickle import UnpicklingError  # what torch raises for a file that is more than weights

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from fleetfl.models import ModelError


def load_into(module: torch.nn.Module, path: Path) -> None:
    """Copy the file's weights into `module`, whose dtypes stay. A ViT's positions are resampled.

    Raises ModelError if the file is missing, damaged, or does not hold this module's weights.
    """
    if not path.is_file():
        raise ModelError(f"checkpoint {path} is missing")
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        UnpicklingError,
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
    ) as broken:
        raise ModelError(f"checkpoint {path} cannot be read: {broken}") from broken
    try:
        if isinstance(module, VisionTransformer):
            weights = checkpoint_filter_fn(weights, module)
        module.load_state_dict(weights, strict=True)
    except (RuntimeError, KeyError) as unfit:
        raise ModelError(f"checkpoint {path} does not fit: {unfit}") from unfit
