"""A canvas is a group of frames painted at once. It knows edges and shadows, but no object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.world.dice import Floats, Plane

Colour = Floats | tuple[float, float, float]
"""float32 [3, n, h, w] or [3, n, 1, 1] in 0..1, or one (red, green, blue) for all."""

SHADE = np.array([0.62, 0.57, 0.48], np.float32)[:, None, None, None]
"""How much of red, green and blue a full shadow takes: the sky still lights it, bluish."""


@dataclass
class Canvas:
    """Pixels and where they lie, in metres from the object; u runs along its heading."""

    pixels: Floats
    """float32 [3, n, h, w] in 0..1 (planes apart: numpy is slow on an inner axis of three)."""
    u: Plane
    v: Plane
    edge: Plane
    """Metres per pixel, [n, 1, 1]."""
    sun_u: Plane
    sun_v: Plane
    """Where the shadow of a point one metre high falls, [n, 1, 1]."""
    lean_u: Plane
    lean_v: Plane
    """Where a camera that is not quite overhead sees a point one metre high, [n, 1, 1]."""
    grain: Plane
    """Fine noise of about unit variance, for whatever wants a rough surface."""

    def cover(self, distance: Plane) -> Plane:
        """Share of each pixel inside the shape, 0..1: one pixel wide edges."""
        share = distance / -self.edge
        share += 0.5
        return np.clip(share, 0, 1, out=share)

    def paint(self, distance: Plane, colour: Colour, opacity: Plane | float = 1.0) -> None:
        self.blend(self.cover(distance) * opacity, colour)

    def blend(self, share: Plane, colour: Colour) -> None:
        """Move the pixels towards `colour` by `share` [n, h, w] in 0..1."""
        if isinstance(colour, tuple):
            colour = np.array(colour, np.float32)[:, None, None, None]
        step = colour - self.pixels
        step *= share
        self.pixels += step

    def shadow(self, distance: Plane, *, strength: Plane | float = 1.0, blur: float = 0.0) -> None:
        """Darken inside the shape; `blur` metres of soft edge for what is high above the ground."""
        share = distance / -(self.edge + blur)
        share += 0.5
        np.clip(share, 0, 1, out=share)
        self.pixels *= 1 - SHADE * (share * strength)

    def line(
        self, distance: Plane, width_m: float, colour: Colour, opacity: Plane | float = 1.0
    ) -> None:
        """A thin stroke around distance zero. Under a pixel wide it fades instead of vanishing."""
        width = np.maximum(width_m, self.edge)
        share = self.cover(np.abs(distance) - width / 2)
        self.blend(share * (opacity * np.minimum(1, width_m / self.edge + 0.25)), colour)

    def window(self, u: Plane, v: Plane, radius_px: int) -> Window:
        """The square around (u, v) [n, 1, 1], its origin there; `put_back()` ends the work."""
        height, width = self.u.shape[1:]
        side = min(2 * radius_px, height, width)
        frames = np.arange(len(self.u))
        # u and v are affine in the pixel, so one corner and two differences locate any point.
        corner_u, corner_v = self.u[:, 0, 0], self.v[:, 0, 0]
        step = self.edge[:, 0, 0] ** 2
        across_u, across_v = self.u[:, 0, 1] - corner_u, self.v[:, 0, 1] - corner_v
        ahead_u, ahead_v = u[:, 0, 0] - corner_u, v[:, 0, 0] - corner_v
        column = (ahead_u * across_u + ahead_v * across_v) / step
        row = (ahead_v * across_u - ahead_u * across_v) / step
        top = np.clip(np.rint(row).astype(np.intp) - side // 2, 0, height - side)
        left = np.clip(np.rint(column).astype(np.intp) - side // 2, 0, width - side)
        ticks = np.arange(side)
        place = (
            frames[:, None, None],
            (top[:, None] + ticks)[:, :, None],
            (left[:, None] + ticks)[:, None, :],
        )
        return Window(
            pixels=self.pixels[(slice(None), *place)],
            u=self.u[place] - u,
            v=self.v[place] - v,
            edge=self.edge,
            sun_u=self.sun_u,
            sun_v=self.sun_v,
            lean_u=self.lean_u,
            lean_v=self.lean_v,
            grain=self.grain[place],
            whole=self.pixels,
            place=place,
        )


@dataclass
class Window(Canvas):
    """A small canvas cut out of a larger one, frame by frame at different places."""

    whole: Floats
    place: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]

    def put_back(self) -> None:
        self.whole[(slice(None), *self.place)] = self.pixels
