"""Composes ground, clutter, object and light into frames. It knows no weather."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.world import ground, objects, texture
from sim.world.canvas import Canvas
from sim.world.dice import Dice, Floats, Plane
from sim.world.light import Light

BLOCK = 128
"""Frames composed together; bounds memory to 128 float frames."""
GROUP = 12
"""Frames painted by one call: enough to hide numpy's overhead, few enough to stay in the cache."""
MIN_SIZE = 16
FIELD_OF_VIEW_DEG = 60.0

SCENE, GROUND, OBJECT = (0, 24), (24, 88), (88, 200)
"""Which throws of a frame's dice belong to the scene, to its ground, to its object."""


def render(labels: ArrayLike, *, seed: int, size: int = 64) -> NDArray[np.uint8]:
    """Frames of the given classes in clear weather: uint8 [B, size, size, 3].

    labels: int [B], indices into CLASSES. Frame i depends on (seed, i, labels[i], size) alone.
    Raises ValueError for a label that is no class, a shape that is not [B], a negative seed or a
    size under 16.
    """
    kinds = np.asarray(labels)
    if kinds.ndim != 1 or (kinds.size and not np.issubdtype(kinds.dtype, np.integer)):
        raise ValueError(f"labels are {kinds.dtype} {list(kinds.shape)}, expected int [B]")
    if kinds.size and not 0 <= kinds.min() <= kinds.max() < len(objects.CLASSES):
        raise ValueError(
            f"labels run from {kinds.min()} to {kinds.max()}, "
            f"expected 0 to {len(objects.CLASSES) - 1}"
        )
    if size < MIN_SIZE:
        raise ValueError(f"size is {size}, expected at least {MIN_SIZE}")
    frames = np.empty((len(kinds), size, size, 3), np.uint8)
    for first in range(0, len(kinds), BLOCK):
        last = min(first + BLOCK, len(kinds))
        dice = Dice.thrown(seed=seed, stream=0, frames=range(first, last), sides=OBJECT[1])
        frames[first:last] = _block(kinds[first:last].astype(np.intp), dice, size)
    return frames


def poses(labels: ArrayLike, *, seed: int) -> NDArray[np.float32]:
    """Altitude in metres and heading in degrees, -180 to 180, of the camera of each frame: float32 [B, 2].

    Frame i is that of `render` with the same labels and seed. The camera sees 60 degrees across.
    """
    kinds = np.asarray(labels).astype(np.intp)
    if not len(kinds):
        return np.zeros((0, 2), np.float32)
    dice = Dice.thrown(seed=seed, stream=0, frames=range(len(kinds)), sides=OBJECT[1])
    _, setting = _setting(kinds, dice)
    altitude = setting.view[:, 0, 0] / (2 * np.tan(np.radians(FIELD_OF_VIEW_DEG / 2)))
    return np.stack([altitude, np.degrees(setting.heading[:, 0, 0])], axis=1).astype(np.float32)


@dataclass(frozen=True)
class _Setting:
    """Where each frame is taken, and in which light; [n, 1, 1] a number."""

    light: Light
    grounds: NDArray[np.intp]
    road: tuple[Plane, Plane]
    heading: Plane
    """Radians."""
    view: Plane
    """Metres across the frame."""


def _setting(labels: NDArray[np.intp], dice: Dice) -> tuple[Dice, _Setting]:
    """The scene's dice, gone on to what is thrown next, and what they said so far, in this order."""
    scene = dice.of(np.arange(len(labels)), first=SCENE[0], last=SCENE[1])
    light = Light.thrown(scene)
    grounds = objects.ground_of(labels, scene)
    road = objects.road_of(labels, scene)
    heading = scene.uniform(-np.pi, np.pi)
    return scene, _Setting(light, grounds, road, heading, objects.view_of(labels, scene))


def _block(labels: NDArray[np.intp], dice: Dice, size: int) -> NDArray[np.uint8]:
    scene, setting = _setting(labels, dice)
    light, grounds, heading = setting.light, setting.grounds, setting.heading
    road_v, road_turn = setting.road
    edge = setting.view / size
    ticks = (np.arange(size, dtype=np.float32) + 0.5 - size / 2) * np.ones((1, 1, 1), np.float32)
    east = edge * (ticks - scene.uniform(-0.07, 0.07) * size)
    south = edge * (ticks.transpose(0, 2, 1) - scene.uniform(-0.07, 0.07) * size)
    cos, sin = np.cos(heading), np.sin(heading)
    whole = Canvas(
        pixels=np.empty((3, len(labels), size, size), np.float32),
        u=east * cos + south * sin,
        v=south * cos - east * sin,
        edge=edge,
        sun_u=light.shadow_east * cos + light.shadow_south * sin,
        sun_v=light.shadow_south * cos - light.shadow_east * sin,
        lean_u=light.lean_east * cos + light.lean_south * sin,
        lean_v=light.lean_south * cos - light.lean_east * sin,
        grain=texture.grains(size, scene),
    )
    for number, rows in _groups(grounds):
        name = list(ground.GROUNDS)[number]
        canvas = _part(whole, rows, slice(None))
        own = dice.of(rows, first=GROUND[0], last=GROUND[1])
        terrain = ground.Terrain(road_v=road_v[rows], road_turn=road_turn[rows])
        ground.GROUNDS[name](canvas, own, terrain)
        ground.clutter(canvas, own, is_wet=name == "water")
        whole.pixels[:, rows] = canvas.pixels
    for number, rows in _groups(labels):
        kind = objects.KINDS[objects.CLASSES[number]]
        margin = int((1 - kind.reach) / 2 * size)
        inside = slice(margin, size - margin)
        canvas = _part(whole, rows, inside)
        kind.draw(canvas, dice.of(rows, first=OBJECT[0], last=OBJECT[1]))
        whole.pixels[:, rows, inside, inside] = canvas.pixels
    return _exposed(whole.pixels, light, whole.grain)


def _groups(numbers: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Rows that share a number, at most GROUP at a time."""
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        for first in range(0, len(rows), GROUP):
            yield int(number), rows[first : first + GROUP]


def _part(whole: Canvas, rows: NDArray[np.intp], inside: slice) -> Canvas:
    """A copy of some frames, cut to their middle."""
    return Canvas(
        pixels=whole.pixels[:, rows, inside, inside],
        u=whole.u[rows, inside, inside],
        v=whole.v[rows, inside, inside],
        edge=whole.edge[rows],
        sun_u=whole.sun_u[rows],
        sun_v=whole.sun_v[rows],
        lean_u=whole.lean_u[rows],
        lean_v=whole.lean_v[rows],
        grain=whole.grain[rows, inside, inside],
    )


def _exposed(pixels: Floats, light: Light, grain: Plane) -> NDArray[np.uint8]:
    """What the sensor keeps: the light's tint, a little noise, whites clipped."""
    pixels *= light.tint * 255
    pixels += 1.8 * grain[:, ::-1]
    np.clip(pixels, 0, 255, out=pixels)
    frames = np.empty((*pixels.shape[1:], 3), np.uint8)
    for channel in range(3):
        frames[..., channel] = pixels[channel]
    return frames
