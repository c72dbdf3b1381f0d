"""Sun and camera: where shadows fall, how tall things lean, what tint the light has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.world.dice import Dice, Floats, Plane

MAX_LEAN_PER_M = 0.22
"""A camera up to about 12 degrees off straight down."""


@dataclass(frozen=True)
class Light:
    shadow_east: Plane
    shadow_south: Plane
    """Where the shadow of a point one metre high falls, in metres, [n, 1, 1]."""
    lean_east: Plane
    lean_south: Plane
    """How far the camera sees a point one metre high from its foot, in metres, [n, 1, 1]."""
    tint: Floats
    """What the sun and the exposure multiply red, green and blue with, [3, n, 1, 1]."""

    @classmethod
    def thrown(cls, dice: Dice) -> Light:
        """Sun 36 to 68 degrees high, warmer when low; exposure within a quarter of a stop."""
        azimuth = dice.uniform(0, 2 * np.pi)
        elevation = np.deg2rad(dice.uniform(36, 68))
        reach = 1 / np.tan(elevation)
        warmth = np.clip(reach - 0.45, 0, 1) * dice.uniform(0.4, 1.0)
        exposure = dice.uniform(0.86, 1.14)
        lean = dice.uniform(0.02, MAX_LEAN_PER_M)
        toward = dice.uniform(0, 2 * np.pi)
        warm = np.array([0.10, -0.02, -0.22], np.float32)[:, None, None, None]
        return cls(
            shadow_east=reach * np.cos(azimuth),
            shadow_south=reach * np.sin(azimuth),
            lean_east=lean * np.cos(toward),
            lean_south=lean * np.sin(toward),
            tint=exposure * (1 + warm * warmth),
        )
