"""Weather, darkness and shake as filters over any photographs. They know no drone world.

Each filter takes float32 [3, n, h, w] in 0..255 and a severity in (0, 1], and gives the same shape
back. Lengths scale with the frame's shorter side: a `unit` is a pixel of a 64 px frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.world.dice import Dice, Floats, Plane
from sim.world.texture import clouds

GROUP = 12
MIN_SIDE = 16
TILE = 192
"""Side of the noise, streak and flake tiles, in units."""
MAX_UNIT = 8
"""Tiles grow no further than this; larger photographs see them repeat."""


@dataclass(frozen=True)
class Sky:
    """What a filter may draw on besides the frames."""

    dice: Dice
    height: int
    width: int

    @property
    def unit(self) -> int:
        return int(np.clip(round(min(self.height, self.width) / 64), 1, MAX_UNIT))

    def clouds(self) -> Plane:
        """Slow noise in 0..1, [n, h, w]."""
        return clouds(self.height, self.width, self.dice)

    def cropped(self, tile: Floats) -> Plane:
        """Another part of a wrapping tile, perhaps mirrored, for each frame, [n, h, w]."""
        throws = self.dice.many(3)
        side = tile.shape[0]
        crops = np.empty((len(throws), self.height, self.width), np.float32)
        rows, columns = np.arange(self.height), np.arange(self.width)
        for crop, (top, left, mirror) in zip(crops, throws.tolist(), strict=True):
            across = columns[::-1] if mirror < 0.5 else columns
            row = (rows + int(top * side)) % side
            column = (across + int(left * side)) % side
            np.take(tile[row], column, axis=1, out=crop)
        return crops


@lru_cache(maxsize=8)
def _noise_tile(unit: int) -> Floats:
    """Sensor noise, unit variance. Grains keep the size of a pixel whatever the unit."""
    side = TILE * min(unit, 2)
    return np.random.default_rng(11).standard_normal((side, side), dtype=np.float32)


@lru_cache(maxsize=8)
def _streak_tile(unit: int) -> Floats:
    """Rain: slanted strokes that fade in and out, 0..1."""
    side = TILE * unit
    rng = np.random.default_rng(12)
    tile = np.zeros((side, side), np.float32)
    count, long = int(0.022 * TILE * TILE), 9 * unit
    y, x = rng.integers(0, side, (2, count))
    strength = rng.uniform(0.25, 1.0, count).astype(np.float32)
    thick = max(1, unit // 2)
    for step in range(long):
        fade = np.sin(np.pi * (step + 0.5) / long)
        for extra in range(thick):
            place = (y + step) % side, (x + step // 3 + extra) % side
            tile[place] = np.maximum(tile[place], strength * np.float32(fade))
    return tile


@lru_cache(maxsize=8)
def _flake_tiles(unit: int) -> tuple[Floats, Floats]:
    """Soft discs 0..1, and the severity from which each falls: worse snow keeps every flake."""
    side = TILE * unit
    rng = np.random.default_rng(13)
    flake, onset = np.zeros((side, side), np.float32), np.ones((side, side), np.float32)
    reach = int(np.ceil(2.4 * unit)) + 1
    ticks = np.arange(-reach, reach + 1)
    away = np.hypot(*np.meshgrid(ticks, ticks))
    for _ in range(int(0.026 * TILE * TILE)):
        y, x = rng.integers(0, side, 2)
        radius = unit * rng.choice([0.7, 0.9, 1.2, 2.0], p=[0.45, 0.33, 0.18, 0.04])
        soft = np.clip((radius + 0.4 * unit - away) / (0.8 * unit), 0, 1) * rng.uniform(0.6, 1)
        rows, columns = np.ix_((y + ticks) % side, (x + ticks) % side)
        above = soft > flake[rows, columns]
        flake[rows, columns] = np.where(above, soft, flake[rows, columns])
        onset[rows, columns] = np.where(above, rng.uniform(0, 1.0), onset[rows, columns])
    return flake, onset


def _blurred(frames: Floats, radius: int) -> Floats:
    """Mean over a square of 2 * radius + 1 pixels, edges repeated."""
    for axis in (2, 3):
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        wide = np.pad(frames, pad, mode="edge")
        length = frames.shape[axis]
        total = np.zeros_like(frames)
        for step in range(2 * radius + 1):
            part = [slice(None)] * 4
            part[axis] = slice(step, step + length)
            total += wide[tuple(part)]
        frames = total * np.float32(1 / (2 * radius + 1))
    return frames


def _veiled(frames: Floats, through: Plane, veil: Floats) -> Floats:
    """Koschmieder's law: a share `through` of the scene, the rest is light of colour `veil`."""
    frames -= veil
    frames *= through
    frames += veil
    return frames


def _colour(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], np.float32)[:, None, None, None]


def _grey(frames: Floats) -> Plane:
    return 0.30 * frames[0] + 0.59 * frames[1] + 0.11 * frames[2]


def _clear(frames: Floats, severity: float, sky: Sky) -> Floats:
    return frames


def _fog(frames: Floats, severity: float, sky: Sky) -> Floats:
    """A grey-white veil in banks; what shines through has lost contrast and fine detail."""
    frames += (_blurred(frames, sky.unit) - frames) * (0.8 * severity)
    depth = 1.5 * severity**1.8 * (0.45 + 1.1 * sky.clouds())
    return _veiled(frames, np.exp(-depth), _colour(208, 213, 218) * sky.dice.uniform(0.9, 1.06))


def _rain(frames: Floats, severity: float, sky: Sky) -> Floats:
    """Dull light, streaks, and drops on the lens that smear what is behind them."""
    drops = np.clip((sky.clouds() - 0.62 + 0.28 * severity) * 7, 0, 1)
    frames += (_blurred(frames, 3 * sky.unit) - frames) * (drops * min(1.0, 1.4 * severity))
    frames += (_grey(frames) - frames) * (0.6 * severity)
    frames *= 1 - 0.55 * severity
    frames += _colour(40, 46, 54) * severity
    streaks = sky.cropped(_streak_tile(sky.unit)) + sky.cropped(_streak_tile(sky.unit))
    frames += (_colour(205, 212, 222) - frames) * np.clip(streaks * (0.85 * severity), 0, 0.9)
    return frames


def _night(frames: Floats, severity: float, sky: Sky) -> Floats:
    """Little light, bluish, with shot and read noise; half the drones carry a warm lamp."""
    gain = 1 - 0.92 * severity
    y = (np.arange(sky.height, dtype=np.float32)[:, None] + 0.5) / sky.height - 0.5
    x = (np.arange(sky.width, dtype=np.float32) + 0.5) / sky.width - 0.5
    lamp_y, lamp_x = sky.dice.uniform(-0.3, 0.3), sky.dice.uniform(-0.3, 0.3)
    cone = np.exp(((y - lamp_y) ** 2 + (x - lamp_x) ** 2) / -0.035)
    cone *= sky.dice.chance(0.5) * 0.30 * severity
    frames += (_grey(frames) - frames) * (0.55 * severity)
    moon = 1 + _colour(-0.35, -0.12, 0.25) * severity
    frames *= gain * moon + cone * _colour(1.1, 1.0, 0.75)
    noise = np.sqrt(frames) * 1.1
    noise += 5.0
    noise *= 0.5 * severity
    for channel in range(3):
        noise[channel] *= sky.cropped(_noise_tile(sky.unit))
    frames += noise
    return frames


def _snow(frames: Floats, severity: float, sky: Sky) -> Floats:
    """Flakes in front of a bright, flat veil; the ground whitens in patches."""
    settled = np.clip(sky.clouds() - 0.75 + 0.5 * severity, 0, 1) * 1.6
    through = np.exp(-0.85 * severity**1.5) * (1 - np.clip(settled * severity, 0, 0.4))
    frames = _veiled(frames, through, _colour(222, 227, 233))
    flake, onset = _flake_tiles(sky.unit)
    falling = sky.cropped(flake * np.clip((severity - onset) * 6, 0, 1))
    falling = np.maximum(
        falling, sky.cropped(flake[::-1] * np.clip((severity - onset[::-1]) * 6, 0, 1))
    )
    frames += (252 - frames) * falling
    return frames


def _dust(frames: Floats, severity: float, sky: Sky) -> Floats:
    """A brown veil in billows with grit in it; blue light goes first."""
    depth = 1.35 * severity**1.6 * (0.4 + 1.2 * sky.clouds())
    frames = _veiled(frames, np.exp(-depth * _colour(0.85, 1.0, 1.25)), _colour(186, 148, 102))
    frames += sky.cropped(_noise_tile(sky.unit)) * (10 * severity)
    return frames


def _motion_blur(frames: Floats, severity: float, sky: Sky) -> Floats:
    """The frame dragged along a line, up to a third of its shorter side, each frame its own way."""
    _, num, height, width = frames.shape
    reach = 0.34 * severity * min(height, width)
    taps = max(2, int(np.ceil(reach)) + 1)
    angle = sky.dice.uniform(0, np.pi)[:, 0, 0]
    pad = int(np.ceil(reach / 2)) + 1
    wide = np.pad(frames, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="edge")
    steps = np.linspace(-reach / 2, reach / 2, taps)
    down = np.rint(np.sin(angle)[:, None] * steps).astype(int) + pad
    along = np.rint(np.cos(angle)[:, None] * steps).astype(int) + pad
    blurred = np.zeros_like(frames)
    for frame in range(num):
        for y, x in zip(down[frame].tolist(), along[frame].tolist(), strict=True):
            blurred[:, frame] += wide[:, frame, y : y + height, x : x + width]
    blurred *= np.float32(1 / taps)
    return blurred


_FILTERS: dict[str, Callable[[Floats, float, Sky], Floats]] = {
    "clear": _clear,
    "fog": _fog,
    "rain": _rain,
    "night": _night,
    "snow": _snow,
    "dust": _dust,
    "motion_blur": _motion_blur,
}

CONDITIONS: tuple[str, ...] = tuple(_FILTERS)


def under(
    images: NDArray[np.uint8], condition: str, severity: float, *, seed: int
) -> NDArray[np.uint8]:
    """The same photographs in another weather: uint8 [B, H, W, 3], a new array; H, W >= 16.

    Severity 0 changes nothing; 0.7 costs a classifier trained in clear weather some 30 points.
    Frame i depends on (seed, i, condition, severity) and its own pixels. Raises ValueError for an
    unknown condition, a severity outside 0..1, a negative seed or another dtype or shape.
    """
    if condition not in _FILTERS:
        raise ValueError(f"condition is {condition!r}, expected one of {', '.join(CONDITIONS)}")
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity}, expected 0 to 1")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"images are {images.dtype} {list(images.shape)}, expected uint8 [B, H, W, 3]"
        )
    height, width = images.shape[1:3]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"images are {height} x {width}, expected at least {MIN_SIDE} x {MIN_SIDE}"
        )
    changed = images.copy()
    if severity == 0 or condition == "clear":
        return changed
    stream = 1 + CONDITIONS.index(condition)
    for first in range(0, len(images), GROUP):
        part = slice(first, min(first + GROUP, len(images)))
        dice = Dice.thrown(seed=seed, stream=stream, frames=range(part.start, part.stop), sides=96)
        frames = np.ascontiguousarray(images[part].transpose(3, 0, 1, 2), np.float32)
        frames = _FILTERS[condition](frames, float(severity), Sky(dice, height, width))
        np.clip(frames, 0, 255, out=frames)
        frames += 0.5
        for channel in range(3):
            changed[part, ..., channel] = frames[channel]
    return changed
