"""Dice hold the random numbers of a group of frames. They know nothing of what is drawn."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""float32 in fact; the wider name is for numpy's stubs, which think float32 * 0.5 is a float64."""
Plane = Floats
"""[n, h, w], or [n, 1, 1] for one number a frame."""


class Dice:
    """Uniform numbers, a row a frame, consumed by column: no frame's throws depend on another's."""

    def __init__(self, uniforms: Floats) -> None:
        self._uniforms = uniforms
        self._next = 0

    @classmethod
    def thrown(cls, *, seed: int, stream: int, frames: Iterable[int], sides: int) -> Dice:
        """`sides` throws for each frame, fixed by (seed, stream, frame number) alone.

        Raises ValueError for a negative seed.
        """
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected 0 or more")
        rows = [
            np.random.default_rng([seed, stream, frame]).random(sides, dtype=np.float32)
            for frame in frames
        ]
        return cls(np.stack(rows))

    def __len__(self) -> int:
        return len(self._uniforms)

    def of(self, rows: NDArray[np.intp], *, first: int, last: int) -> Dice:
        """The throws `first:last` of some of the frames, as fresh dice."""
        return Dice(self._uniforms[rows, first:last])

    def many(self, count: int) -> Floats:
        """float32 [n, count] in [0, 1)."""
        drawn = self._uniforms[:, self._next : self._next + count]
        self._next += count
        assert drawn.shape[1] == count, (
            "more throws than sides: raise `sides` where these were thrown"
        )
        return drawn

    def uniform(self, low: float, high: float) -> Plane:
        """float32 [n, 1, 1] in [low, high)."""
        return self.many(1)[:, :, None] * np.float32(high - low) + np.float32(low)

    def chance(self, probability: float) -> Plane:
        """float32 [n, 1, 1], 1 where it happened and 0 where it did not."""
        return (self.many(1)[:, :, None] < probability).astype(np.float32)

    def sign(self) -> Plane:
        """float32 [n, 1, 1], -1 or 1."""
        return self.chance(0.5) * 2 - 1

    def colour(self, palette: Floats, *, vary: float = 0.08) -> Floats:
        """float32 [3, n, 1, 1]: a row of the palette [m, 3], brighter or darker by up to `vary`."""
        row = (self.many(1)[:, 0] * len(palette)).astype(np.intp)
        tone = 1 + vary * (2 * self.many(1)[:, 0] - 1)
        return (palette[row] * tone[:, None]).T[:, :, None, None].astype(np.float32)


def palette(*hex_colours: str) -> Floats:
    """float32 [m, 3] in 0..1 from "rrggbb" strings."""
    rows = [[int(text[k : k + 2], 16) / 255 for k in (0, 2, 4)] for text in hex_colours]
    return np.array(rows, np.float32)
