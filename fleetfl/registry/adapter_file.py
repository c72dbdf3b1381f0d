"""Adapter files: named float32 tensors (safetensors) with their meaning in the header."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from fleetfl import FleetflError
from fleetfl.storage.atomic_write import write_durably
from fleetfl.vectors import Layout


class AdapterFileError(FleetflError, ValueError):
    """A file that holds no adapter; names it and what was expected."""


MEANING = "meaning"
"""Name of the header's entry for `Layout.meaning`; files of older versions have none."""


def write_adapter(path: Path, layout: Layout, vector: np.ndarray, **about: object) -> None:
    """Write the file of `adapter_bytes` whole or not at all. Raises OSError."""
    write_durably(path, adapter_bytes(layout, vector, **about))


def adapter_bytes(layout: Layout, vector: np.ndarray, **about: object) -> bytes:
    """File content: `vector`, float32 [P], as named tensors; `about` goes into the header as JSON.

    The meaning of the values stands beside it. The same arguments give the same bytes.
    """
    tensors = {name: np.ascontiguousarray(t) for name, t in layout.unflatten(vector).items()}
    meaning = {name: json.loads(value) for name, value in layout.meaning}
    entries = {MEANING: meaning, **about}
    return _in_order(save(tensors, metadata={k: json.dumps(v) for k, v in entries.items()}))


def _in_order(content: bytes) -> bytes:
    """The file's content with its header's keys sorted: safetensors draws their order by chance."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors begin at a multiple of 8
    return len(ordered).to_bytes(8, "little") + ordered + content[8 + size :]


def read_adapter(path: Path) -> tuple[Layout, np.ndarray]:
    """Layout and vector, float32 [P]. Raises AdapterFileError for a missing, damaged or odd file.

    The layout of an older version's file has no meaning.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata() or {}
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise AdapterFileError(f"adapter file {path}: {name} is not finite float32")
    try:
        layout = Layout.of(tensors, json.loads(about.get(MEANING, "{}")))
        return layout, layout.flatten(tensors)
    except Exception as odd:
        raise AdapterFileError(f"adapter file {path} has an odd meaning: {odd}") from odd


def says_meaning(path: Path) -> bool:
    """Whether the file states the meaning of its values, even an empty one; older versions' files do not."""
    return MEANING in read_about(path)


def read_about(path: Path) -> dict[str, str]:
    """Entries of the header beside the tensors, JSON by name. Raises AdapterFileError."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise AdapterFileError(f"adapter file {path} is missing")
    try:
        with safe_open(path, "numpy") as file:
            yield file
    except Exception as broken:
        raise AdapterFileError(f"adapter file {path} cannot be read: {broken}") from broken
