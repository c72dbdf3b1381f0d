"""An adapter on disk: named float32 tensors (safetensors), with what they are in the header."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fleetfl import FleetflError
from fleetfl.durable import write_durably
from fleetfl.vectors import Layout


class AdapterFileError(FleetflError, ValueError):
    """A file that holds no adapter; names it and what was expected."""


def write_adapter(path: Path, layout: Layout, vector: np.ndarray, **about: object) -> None:
    """Write `adapter_bytes`, whole or not at all. Raises OSError."""
    write_durably(path, adapter_bytes(layout, vector, **about))


def adapter_bytes(layout: Layout, vector: np.ndarray, **about: object) -> bytes:
    """float32 [P] as named tensors; `about` (version, scores, ...) goes into the header as JSON.

    safetensors writes its keys in an order drawn by chance, so a file whose bytes matter has one.
    """
    tensors = {name: np.ascontiguousarray(t) for name, t in layout.unflatten(vector).items()}
    return save(tensors, metadata={k: json.dumps(v) for k, v in about.items()})


def read_adapter(path: Path) -> tuple[Layout, np.ndarray]:
    """Layout and vector, float32 [P]. Raises AdapterFileError for a missing, damaged or odd file."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise AdapterFileError(f"adapter file {path}: {name} is not finite float32")
    layout = Layout.of(tensors)
    return layout, layout.flatten(tensors)


def read_about(path: Path) -> dict[str, str]:
    """What the header says beside the tensors, JSON by name. Raises AdapterFileError as above."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise AdapterFileError(f"adapter file {path} is missing")
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except (SafetensorError, OSError) as broken:
        raise AdapterFileError(f"adapter file {path} cannot be read: {broken}") from broken
