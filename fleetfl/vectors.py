"""One adapter as one flat float32 vector, and back.

Everything between vehicle and server -- codecs, clipping, aggregation, optimizers -- works on
that vector, so none of it knows a layer name. P below is its length.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

PARTS = ("classes", "backbone", "weights", "image_size", "preprocessing", "adapter")
"""Parts of the model that give a vector's values their meaning, in the order of `Layout.parts` after its
first byte, which stands for the tensors.

A new part goes to the end: bytes that are there keep their place. `weights` are the frozen backbone's.
"""
TENSORS = "tensors"
TOLD = 90
"""Largest number of characters of a part's value that a refusal quotes."""


@dataclass(frozen=True)
class Layout:
    """Order, shapes and meaning of the tensors inside the vector. Both ends must hold the same one."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    meaning: tuple[tuple[str, str], ...] = ()
    """Name (of `PARTS`, in their order) and value (JSON); empty for vectors that come from no model."""

    @classmethod
    def of(
        cls, tensors: Mapping[str, np.ndarray], meaning: Mapping[str, Any] | None = None
    ) -> "Layout":
        """The layout of these tensors, in the order of their names, and of what they mean, plain values.

        Raises ValueError for a part of the meaning that is none of `PARTS`.
        """
        shapes = tuple((name, tuple(tensors[name].shape)) for name in sorted(tensors))
        return cls(shapes).meant(meaning or {})

    def meant(self, meaning: Mapping[str, Any]) -> "Layout":
        """This layout with another meaning, plain values. Raises ValueError for a part that is none of
        `PARTS`.
        """
        unknown = sorted(set(meaning) - set(PARTS))
        if unknown:
            raise ValueError(f"a meaning of {unknown}, expected parts from {list(PARTS)}")
        values = ((name, meaning[name]) for name in PARTS if name in meaning)
        return Layout(self.shapes, tuple((n, json.dumps(v, sort_keys=True)) for n, v in values))

    @classmethod
    def flat(cls, size: int) -> "Layout":
        """One tensor of so many values, for vectors that come from no model."""
        return cls((("values", (size,)),))

    @cached_property
    def size(self) -> int:
        """P, the number of values in the vector."""
        return sum(prod(shape) for _, shape in self.shapes)

    @cached_property
    def fingerprint(self) -> bytes:
        """8 bytes; they travel with every update so that a mismatch is refused, not summed."""
        meaning = repr(self.meaning) if self.meaning else ""
        return hashlib.sha256((repr(self.shapes) + meaning).encode()).digest()[:8]

    @cached_property
    def parts(self) -> bytes:
        """A byte for the tensors and one for each of `PARTS`, to find which differs where fingerprints do."""
        known = dict(self.meaning)
        named = [repr(self.shapes), *(known.get(name, "") for name in PARTS if known)]
        return b"".join(hashlib.sha256(value.encode()).digest()[:1] for value in named)

    @property
    def plain(self) -> "Layout":
        """This layout without a meaning, as all layouts of older versions were."""
        return Layout(self.shapes)

    def means(self, *parts: str) -> bytes:
        """32 bytes that name these parts of the meaning; empty if there is none."""
        known = dict(self.meaning)
        chosen = [known.get(name, "") for name in parts]
        return hashlib.sha256(repr(chosen).encode()).digest() if known else b""

    def objection(self, fingerprint: bytes, parts: bytes, *, ours: str) -> str:
        """Why values of another layout are of no use here, part by part; empty if it is this one.

        `ours` says in words whose this layout is: its values are told, of the other's only bytes are known.
        """
        if fingerprint == self.fingerprint:
            return ""
        layouts = f"layout {fingerprint.hex()}, expected {self.fingerprint.hex()} ({ours})"
        if fingerprint == self.plain.fingerprint:
            return (
                f"{layouts}: it says nothing of classes, backbone and adapter, as in older versions"
            )
        names = (TENSORS, *PARTS)
        pairs = zip(names, parts, self.parts, strict=False)
        differing = [name for name, its, our in pairs if its != our]
        if not differing:
            return f"{layouts}; which part of the model differs is not known"
        told = ", ".join(f"{name} ({ours}: {self._told(name)})" for name in differing)
        return f"model differs in {told}"

    def difference(self, other: "Layout") -> str:
        """Parts that differ, with this layout's value and the other's; empty if there are none.

        A layout without a meaning is not said to have another one.
        """
        names = [TENSORS] if self.shapes != other.shapes else []
        if self.meaning and other.meaning:
            mine, its = dict(self.meaning), dict(other.meaning)
            names += [name for name in PARTS if mine.get(name) != its.get(name)]
        return ", ".join(f"{n} ({self._told(n)} against {other._told(n)})" for n in names)

    def _told(self, name: str) -> str:
        """A part's value for a person, cut to a length that fits into a receipt."""
        if name == TENSORS:
            return f"{len(self.shapes)} of {self.size} values"
        value = dict(self.meaning).get(name)
        if value is None:
            return "not said"
        text = json.dumps(json.loads(value), ensure_ascii=False)
        return text if len(text) <= TOLD else f"{text[: TOLD - 3]}..."

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
