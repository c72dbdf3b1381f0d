"""An adapter on disk: named float32 tensors (safetensors), with what they are in the header."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fleetfl import FleetflError
from fleetfl.vectors import Layout


class AdapterFileError(FleetflError, ValueError):
    """A file that holds no adapter; names it and what was expected."""


def write_adapter(path: Path, layout: Layout, vector: np.ndarray, **about: object) -> None:
    """Write float32 [P] as named tensors. `about` (version, scores, ...) goes into the header as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(t) for name, t in layout.unflatten(vector).items()}
    half_written = path.with_suffix(".partial")
    save_file(tensors, half_written, metadata={k: json.dumps(v) for k, v in about.items()})
    half_written.replace(path)


def read_adapter(path: Path) -> tuple[Layout, np.ndarray]:
    """Layout and vector, float32 [P]. Raises AdapterFileError for a missing, damaged or odd file."""
    if not path.is_file():
        raise AdapterFileError(f"adapter file {path} is missing")
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as broken:
        raise AdapterFileError(f"adapter file {path} cannot be read: {broken}") from broken
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise AdapterFileError(f"adapter file {path}: {name} is not finite float32")
    layout = Layout.of(tensors)
    return layout, layout.flatten(tensors)
