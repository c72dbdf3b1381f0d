"""Exports a release as the whole network, adapter folded into the backbone, under timm's names."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.torch import save

from fleetfl.registry.loading import model_of
from fleetfl.registry.release_file import Record
from fleetfl.storage.atomic_write import write_durably
from fleetfl.vectors import Layout


def write_merged(
    path: Path, record: Record, layout: Layout, vector: np.ndarray, settings: dict[str, Any]
) -> None:
    """Write the network that `settings` describe, with `vector`, float32 [P], folded in. Raises ModelError.

    The header's entry `fleetfl` has the record, the preprocessing of pictures and the classes.
    """
    model = model_of(record, layout, vector, settings)
    about = {
        "record": msgspec.to_builtins(record),
        "classes": settings["model"]["classes"],
        "image_size": model.image_size,
        "mean": (model.mean.flatten() / 255).tolist(),
        "std": (model.std.flatten() / 255).tolist(),
    }
    write_durably(path, save(model.merged(), metadata={"fleetfl": json.dumps(about)}))
