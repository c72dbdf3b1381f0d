"""Loads a release as a torch module."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetfl.models import ModelConfig, ModelError
from fleetfl.registry.registry import Registry, RegistryError
from fleetfl.registry.release_file import Record, read_release
from fleetfl.vectors import Layout

if TYPE_CHECKING:
    from fleetfl.models.adapted import AdaptedModel


def load_release(path: str | Path, version: str | int = "best") -> "AdaptedModel":
    """The release as a torch module in eval mode, on the CPU.

    `path` is a server's state folder, of which `version` chooses VERSION, GENERATION/VERSION, `newest` or
    `best`; or a release in its registry, `registry/GENERATION/VERSION.safetensors`.

        model = fleetfl.load_release("state/server")
        model.predictions(images)      # uint8 [B, H, W, 3] -> float32 [B, C], rows summing to 1
        model(torch.from_numpy(images))                                      # logits, float32 [B, C]
        model.config.classes                                   # names of the C classes, in their order

    Raises RegistryError, ReleaseFileError or ModelError.
    """
    path = Path(path)
    if path.is_dir():
        registry = Registry.of_server(path)
        path = registry.find(str(version)).path
    elif path.suffix == ".safetensors":
        registry = Registry(path.absolute().parent.parent)
    else:
        raise RegistryError(f"{path} is neither a server's state folder nor a .safetensors file")
    record, layout, vector = read_release(path)
    return model_of(record, layout, vector, registry.config(record.config)).eval()


def model_of(
    record: Record, layout: Layout, vector: np.ndarray, settings: dict[str, Any]
) -> "AdaptedModel":
    """The model that `settings` describe, with `vector`, float32 [P], in place. Raises ModelError."""
    model = ModelConfig.model_validate(settings["model"]).build(seed=settings["seed"])
    unlike = layout.difference(model.layout)
    if unlike:
        raise ModelError(f"{record.name} is not of the model that its settings make: {unlike}")
    model.load(vector)
    return model
