"""Tileable noise, made once and cropped at random. It knows not what the noise stands for."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sim.world.dice import Dice, Floats, Plane

FRAMES_PER_TILE = 4


@lru_cache(maxsize=32)
def noise_tile(size: int, coarsest: float, finest: float, slope: float, key: int) -> Plane:
    """float32 [5 * size, 5 * size], mean 0, variance 1: four frames and one more across the seam.

    Random phases under a power law |F| ~ f^-slope, so it tiles by construction. `coarsest` and
    `finest` are wavelengths as parts of a frame.
    """
    side = FRAMES_PER_TILE * size
    white = np.random.default_rng([77, key, size]).standard_normal((side, side))
    spectrum = np.fft.rfft2(white)
    cycles_y = np.fft.fftfreq(side)[:, None] * size
    cycles_x = np.fft.rfftfreq(side)[None, :] * size
    cycles = np.hypot(cycles_y, cycles_x)
    cycles[0, 0] = 1
    gain = (
        cycles**-slope
        * np.exp(-((cycles * finest) ** 2))
        * (1 - np.exp(-((cycles * coarsest) ** 2)))
    )
    gain[0, 0] = 0
    tile = np.fft.irfft2(spectrum * gain, s=(side, side))
    tile = (tile / tile.std()).astype(np.float32)
    return np.pad(tile, ((0, size), (0, size)), mode="wrap")


def cropped(tile: Plane, size: int, dice: Dice) -> Plane:
    """float32 [n, size, size]: each frame gets its own place and one of eight orientations."""
    throws = dice.many(3)
    room = tile.shape[0] - size
    crops = np.empty((len(throws), size, size), np.float32)
    for crop, (top, left, turn) in zip(crops, throws.tolist(), strict=True):
        y, x, way = int(top * room), int(left * room), int(turn * 8)
        part = tile[y : y + size, x : x + size]
        part = part.T if way & 1 else part
        crop[:] = part[:: -1 if way & 2 else 1, :: -1 if way & 4 else 1]
    return crops


def patches(size: int, dice: Dice) -> Plane:
    """Slow variation over a third of a frame and up: moisture, dunes, wear."""
    return cropped(noise_tile(size, 1.5, 0.16, 1.0, 1), size, dice)


def lumps(size: int, dice: Dice) -> Plane:
    """Features of a few pixels at 64 px: tufts, ripples, stains."""
    return cropped(noise_tile(size, 0.35, 0.045, 0.8, 2), size, dice)


def grains(size: int, dice: Dice) -> Plane:
    """Pixel-fine roughness."""
    return cropped(noise_tile(size, 0.1, 0.012, 0.2, 3), size, dice)


def bilinear(height: int, knots: int) -> Floats:
    """float32 [height, knots]: weights that stretch `knots` values over `height` pixels."""
    at = np.linspace(0, knots - 1, height, dtype=np.float32)[:, None]
    near = np.clip(1 - np.abs(at - np.arange(knots, dtype=np.float32)), 0, 1)
    return near * near * (3 - 2 * near)


def clouds(height: int, width: int, dice: Dice) -> Plane:
    """float32 [n, height, width] in 0..1, two octaves of slow noise at any frame shape."""
    wide = dice.many(16).reshape(-1, 4, 4)
    close = dice.many(49).reshape(-1, 7, 7)
    cloud = 0.65 * (bilinear(height, 4) @ wide @ bilinear(width, 4).T)
    return cloud + 0.35 * (bilinear(height, 7) @ close @ bilinear(width, 7).T)
