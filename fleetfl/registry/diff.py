"""Compares two releases tensor by tensor. Vectors in, plain values out."""

from dataclasses import dataclass

import numpy as np

from fleetfl import FleetflError
from fleetfl.vectors import Layout


class DiffError(FleetflError, ValueError):
    """Two releases that cannot be compared: they are of other models."""


@dataclass(frozen=True)
class Change:
    """Difference between releases a and b in one tensor, or in all of them."""

    tensor: str
    """Name of the tensor; `all` for all of them."""
    num_values: int
    """Number of its values."""
    norm: float
    """Norm of a."""
    change: float
    """Norm of the difference b - a."""
    cosine: float
    """Cosine of the angle between a and b; 1 if both are zero, 0 if one is."""
    largest: float
    """Largest change of a single value, with its sign."""


def changes(layout: Layout, a: np.ndarray, b: np.ndarray) -> list[Change]:
    """Differences of each tensor, and of all as `all`; a and b are float32 [P]."""
    one, other = layout.unflatten(a), layout.unflatten(b)
    return [
        *(_change(name, one[name].ravel(), other[name].ravel()) for name, _ in layout.shapes),
        _change("all", a, b),
    ]


def require_same(a: Layout, b: Layout) -> None:
    """Raises DiffError, naming what differs, for releases of two models."""
    unlike = a.difference(b)
    if unlike:
        raise DiffError(f"releases of two models cannot be compared: they differ in {unlike}")


def _change(name: str, a: np.ndarray, b: np.ndarray) -> Change:
    a, b = a.astype(np.float64), b.astype(np.float64)
    step = b - a
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    product = norm_a * norm_b
    cosine = float(a @ b) / product if product else float(norm_a == norm_b)
    largest = float(step[np.argmax(np.abs(step))]) if step.size else 0.0
    return Change(name, a.size, norm_a, float(np.linalg.norm(step)), cosine, largest)
