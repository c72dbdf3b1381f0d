"""Signed distances to plain shapes, negative inside. They know nothing of pixels or colours.

Coordinates and results are float32 [n, h, w] in metres; sizes are floats or [n, 1, 1].
(The usual formulas: I. Quilez, "2D distance functions".)
"""

from __future__ import annotations

import numpy as np

from sim.world.dice import Plane

Size = Plane | float


def disc(u: Plane, v: Plane, radius: Size) -> Plane:
    return np.sqrt(u * u + v * v) - radius


def ellipse(u: Plane, v: Plane, half_u: Size, half_v: Size) -> Plane:
    """Exact on the outline; near it, close enough for an anti-aliased edge."""
    a, b = u / half_u, v / half_v
    level = a * a + b * b
    slope = np.sqrt((a / half_u) ** 2 + (b / half_v) ** 2)
    return (level - 1) / (2 * slope + 1e-4)


def box(u: Plane, v: Plane, half_u: Size, half_v: Size) -> Plane:
    """Sharp corners. The cheap bound max(|u| - a, |v| - b), exact along the edges."""
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def round_box(u: Plane, v: Plane, half_u: Size, half_v: Size, radius: Size) -> Plane:
    a = np.abs(u) - (half_u - radius)
    b = np.abs(v) - (half_v - radius)
    outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    return outside + np.minimum(np.maximum(a, b), 0) - radius


def swept_box(u: Plane, v: Plane, half_u: Size, half_v: Size, *, du: Plane, dv: Plane) -> Plane:
    """A box dragged along (du, dv): the hexagon that a block's shadow or its leaning walls cover.

    The hexagon is where three slabs meet: two around the box and its end place, one along the drag.
    """
    length = np.sqrt(du * du + dv * dv) + 1e-6
    u, v = u - du / 2, v - dv / 2
    across = np.abs(u * (dv / length) - v * (du / length))
    beside = across - (half_u * np.abs(dv) + half_v * np.abs(du)) / length
    ends = np.maximum(np.abs(u) - (half_u + np.abs(du) / 2), np.abs(v) - (half_v + np.abs(dv) / 2))
    return np.maximum(ends, beside)


def capsule(u: Plane, v: Plane, du: Plane, dv: Plane, radius: Size) -> Plane:
    """A round-ended stroke from (0, 0) to (du, dv)."""
    along = np.clip((u * du + v * dv) / (du * du + dv * dv + 1e-6), 0, 1)
    return disc(u - along * du, v - along * dv, radius)


def hull(u: Plane, v: Plane, half_length: Size, half_width: Size, bow: Size) -> Plane:
    """A boat from above: square stern at -half_length, a bow at +half_length.

    `bow` in 1..3: small is a needle, large is a barge.
    """
    t = np.clip((u + half_length) / (2 * half_length), 0, 1)
    side = half_width * (1 - t ** (1.2 + bow)) * (0.82 + 0.18 * np.minimum(t * 4, 1))
    return np.maximum(np.maximum((np.abs(v) - side) * 0.8, -half_length - u), u - half_length)
