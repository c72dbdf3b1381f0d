"""One adapter as one flat float32 vector, and back.

Everything between vehicle and server -- codecs, clipping, aggregation, optimizers -- works on
that vector, so none of it knows a layer name. P below is its length.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Order and shapes of the tensors inside the vector. Both ends must hold the same one."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> "Layout":
        """The layout of these tensors, in the order of their names."""
        return cls(tuple((name, tuple(tensors[name].shape)) for name in sorted(tensors)))

    @classmethod
    def flat(cls, size: int) -> "Layout":
        """One tensor of so many values, for vectors that come from no model."""
        return cls((("values", (size,)),))

    @cached_property
    def size(self) -> int:
        return sum(prod(shape) for _, shape in self.shapes)

    @cached_property
    def fingerprint(self) -> bytes:
        """8 bytes; they travel with every update so that a mismatch is refused, not summed."""
        return hashlib.sha256(repr(self.shapes).encode()).digest()[:8]

    def flatten(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Tensors -> float32 [P]. Raises ValueError if they do not fit the layout."""
        known = {name for name, _ in self.shapes}
        if known != set(tensors):
            raise ValueError(
                f"tensors {sorted(set(tensors) ^ known)} are in one of layout and input only"
            )
        vector = np.empty(self.size, np.float32)
        start = 0
        for name, shape in self.shapes:
            tensor = np.asarray(tensors[name])
            if tensor.shape != shape:
                raise ValueError(f"{name}: shape {tensor.shape}, layout says {shape}")
            vector[start : start + tensor.size] = tensor.ravel()
            start += tensor.size
        return vector

    def unflatten(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """float32 [P] -> views into it, one a tensor. Raises ValueError for another length."""
        if vector.shape != (self.size,):
            raise ValueError(f"vector of shape {vector.shape}, layout says ({self.size},)")
        tensors, start = {}, 0
        for name, shape in self.shapes:
            tensors[name] = vector[start : (start := start + prod(shape))].reshape(shape)
        return tensors


def digest(vector: np.ndarray) -> bytes:
    """SHA-256 of the little-endian float32 bytes: equal on all who hold the same release."""
    return hashlib.sha256(np.ascontiguousarray(vector, "<f4").tobytes()).digest()
