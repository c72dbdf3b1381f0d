"""Six kinds of ground. They know scale, heading and sun, never what will stand on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.world import shapes, texture
from sim.world.canvas import Canvas
from sim.world.dice import Dice, Floats, Plane, palette


@dataclass(frozen=True)
class Terrain:
    """What the frame asks of its ground, one value a frame, [n, 1, 1]."""

    road_v: Plane
    """Metres from the object's centre line to the middle of the road, if there is a road."""
    road_turn: Plane
    """Radians between the object's heading and the road."""


CROPS = palette("5f7a35", "7d9440", "46662c", "a89a54", "c2ab62", "8a6b45", "6f553a", "93a35a")
GRASS = palette("647a3c", "7a8748", "8f8a55", "56703a", "9a8a62")
ASPHALT = palette("5b5c5e", "6a6a69", "4b4d51", "77756f")
WATERS = palette("1f4a5c", "2a5a63", "24506f", "3b6a62", "1b3f4f", "4a7280")
SANDS = palette("c9ae7d", "d8c294", "b9986a", "cdb184")
SNOWS = palette("cdd5de", "d8dee4", "c3cdd8")
TILES = palette("a2583d", "8d4a36", "b56b4b", "6b6763", "7a4f40")
FLATS = palette("9a968e", "b3afa6", "85858a", "a59a88", "c4c2bc")
PAINT = (0.86, 0.86, 0.82)
WEAR = (0.26, 0.24, 0.22)


def _surface(canvas: Canvas, colour: Floats, relief: Plane) -> None:
    """Fill with `colour` [3, n, 1, 1], brightened by `relief` [n, h, w] in parts of one."""
    np.multiply(colour, 1 + relief, out=canvas.pixels)


def _turned(canvas: Canvas, angle: Plane) -> tuple[Plane, Plane]:
    cos, sin = np.cos(angle), np.sin(angle)
    return canvas.u * cos + canvas.v * sin, canvas.v * cos - canvas.u * sin


def _wheel_track(along: Plane, across: Plane, dice: Dice) -> Plane:
    """Distance to the nearer of two ruts, 1.6 m apart, that wind along `across`."""
    bend = dice.uniform(0.4, 1.6) * np.sin(across * dice.uniform(0.1, 0.3) + dice.uniform(0, 6.3))
    return np.abs(along + bend - dice.uniform(-9, 9)) - 0.8


def field(canvas: Canvas, dice: Dice, terrain: Terrain) -> None:
    """Crop rows in one or two plots, some of them grass, with a tractor's tramlines."""
    size = canvas.u.shape[1]
    slow, lump = texture.patches(size, dice), texture.lumps(size, dice)
    along, across = _turned(canvas, dice.uniform(-np.pi, np.pi))
    border = across * dice.sign() - dice.uniform(0.2, 2.2) * 20 * canvas.edge * size / 64
    far = canvas.cover(border)
    near_crop, far_crop = dice.colour(CROPS, vary=0.12), dice.colour(CROPS, vary=0.12)
    pitch = np.maximum(dice.uniform(0.9, 3.2), canvas.edge * dice.uniform(3.6, 5.5) * size / 64)
    swap = dice.chance(0.5)
    rows = across + (along - across) * (swap * far)
    stripe = np.sin(rows * (2 * np.pi / pitch) + 0.5 * lump)
    depth = dice.uniform(0.02, 0.20) * dice.chance(0.8)
    relief = stripe * depth
    relief += 0.06 * slow + 0.06 * lump + 0.035 * canvas.grain
    _surface(canvas, far_crop, relief)
    canvas.blend(1 - far, near_crop * (1 + relief))
    canvas.line(border, 0.7, WEAR, 0.4)
    tram = np.abs(np.abs(along - dice.uniform(-8, 8)) - 0.9)
    canvas.line(tram, 0.35, (0.42, 0.36, 0.27), 0.6 * dice.chance(0.45))


def road(canvas: Canvas, dice: Dice, terrain: Terrain) -> None:
    """Asphalt with edge lines and lane dashes between two verges."""
    size = canvas.u.shape[1]
    slow, lump = texture.patches(size, dice), texture.lumps(size, dice)
    relief = 0.09 * slow + 0.09 * lump
    relief += 0.06 * canvas.grain
    _surface(canvas, dice.colour(GRASS), relief)
    along, across = _turned(canvas, terrain.road_turn)
    across = across - terrain.road_v
    half = dice.uniform(3.4, 7.4)
    gravel = dice.uniform(0.3, 1.2)
    worn = 0.04 * slow + 0.035 * canvas.grain - 0.05 * np.cos(across * (2 * np.pi / 1.75))
    canvas.paint(
        np.abs(across) - half - gravel,
        np.array([0.55, 0.51, 0.44], np.float32)[:, None, None, None] * (1 + relief),
    )
    canvas.paint(np.abs(across) - half, dice.colour(ASPHALT) * (1 + worn))
    canvas.line(np.abs(across) - (half - 0.35), 0.16, PAINT, 0.85)
    lanes = np.where(half > 5.2, np.abs(np.abs(across) - half / 3), np.abs(across))
    gaps = np.abs(np.mod(along + dice.uniform(0, 9), 7.0) - 3.5) - 1.6
    canvas.line(lanes, 0.16, PAINT, 0.9 * canvas.cover(gaps))


def water(canvas: Canvas, dice: Dice, terrain: Terrain) -> None:
    """Ripples across the wind, with the sun's glints on their crests."""
    size = canvas.u.shape[1]
    slow, lump = texture.patches(size, dice), texture.lumps(size, dice)
    _, across = _turned(canvas, dice.uniform(-np.pi, np.pi))
    pitch = canvas.edge * dice.uniform(5, 10) * size / 64
    wave = np.sin(across * (2 * np.pi / pitch) + 1.5 * lump + 2 * slow)
    relief = wave * dice.uniform(0.02, 0.11)
    relief += 0.10 * slow + 0.05 * lump
    _surface(canvas, dice.colour(WATERS, vary=0.18), relief)
    crest = wave + 0.8 * canvas.grain + 0.7 * slow - dice.uniform(2.0, 3.4)
    canvas.blend(np.clip(crest, 0, 1) * 0.75, (0.85, 0.92, 0.95))


def sand(canvas: Canvas, dice: Dice, terrain: Terrain) -> None:
    """Wind ripples that bend, wheel tracks here and there."""
    size = canvas.u.shape[1]
    slow, lump = texture.patches(size, dice), texture.lumps(size, dice)
    along, across = _turned(canvas, dice.uniform(-np.pi, np.pi))
    pitch = canvas.edge * dice.uniform(4.5, 9) * size / 64
    ripple = np.sin(across * (2 * np.pi / pitch) + 2.2 * slow + 0.6 * lump)
    relief = ripple * dice.uniform(0.0, 0.055)
    relief += 0.055 * slow + 0.035 * lump + 0.03 * canvas.grain
    _surface(canvas, dice.colour(SANDS), relief)
    canvas.line(_wheel_track(along, across, dice), 0.3, (0.55, 0.44, 0.30), 0.5 * dice.chance(0.4))


def snow(canvas: Canvas, dice: Dice, terrain: Terrain) -> None:
    """Drifts with blue hollows, now and then a track or bare earth."""
    size = canvas.u.shape[1]
    slow, lump = texture.patches(size, dice), texture.lumps(size, dice)
    relief = 0.035 * slow + 0.025 * lump + 0.015 * canvas.grain
    _surface(canvas, dice.colour(SNOWS, vary=0.05), relief)
    hollow = np.clip(-slow - 0.4, 0, 1.2)
    canvas.blend(hollow * 0.28, (0.62, 0.71, 0.83))
    bare = np.clip(lump + slow - dice.uniform(1.6, 4.5), 0, 1)
    canvas.blend(bare * 0.6, (0.45, 0.40, 0.33))
    along, across = _turned(canvas, dice.uniform(-np.pi, np.pi))
    canvas.line(_wheel_track(along, across, dice), 0.35, (0.60, 0.66, 0.74), 0.7 * dice.chance(0.4))


def roofs(canvas: Canvas, dice: Dice, terrain: Terrain) -> None:
    """A town: rows of tiles, or a flat deck with seams; past the parapet lies the street."""
    size = canvas.u.shape[1]
    slow, lump = texture.patches(size, dice), texture.lumps(size, dice)
    along, across = _turned(canvas, dice.uniform(-0.25, 0.25))
    tiled = dice.chance(0.4)
    course = np.maximum(0.8, canvas.edge * 3.4 * size / 64)
    bond = np.mod(across, course) / course
    joint = np.mod(along + course * 0.5 * (np.mod(across, 2 * course) > course), course) / course
    tiles = np.float32(-0.22) * (bond < 0.3) - np.float32(0.08) * (joint < 0.25)
    slab = np.maximum(dice.uniform(2.5, 6.0), canvas.edge * 9 * size / 64)
    seam = np.minimum(
        np.abs(np.mod(along, slab) - slab / 2), np.abs(np.mod(across + 1, slab) - slab / 2)
    )
    seams = -0.16 * canvas.cover(seam - canvas.edge * 0.4 * size / 64)
    relief = tiles * tiled + seams * (1 - tiled)
    relief += 0.05 * slow + 0.03 * lump + 0.035 * canvas.grain
    base = np.where(tiled > 0, dice.colour(TILES, vary=0.15), dice.colour(FLATS, vary=0.12))
    _surface(canvas, base, relief)
    rim = across * dice.sign() - dice.uniform(0.75, 1.6) * 20 * canvas.edge * size / 64
    street = np.array([0.36, 0.36, 0.37], np.float32)[:, None, None, None] * (
        1 + 0.06 * slow + 0.04 * canvas.grain
    )
    canvas.paint(-rim, street, dice.chance(0.7))
    canvas.line(rim, 0.5, (0.78, 0.76, 0.72), 0.9)


GROUNDS: dict[str, Callable[[Canvas, Dice, Terrain], None]] = {
    "field": field,
    "road": road,
    "water": water,
    "sand": sand,
    "snow": snow,
    "roofs": roofs,
}

BUSHES = palette("3f5a2a", "55702f", "6c7a3c", "4a5f38")
ROCKS = palette("8a857c", "6e6a65", "a39a8a", "5d5a58")


def clutter(canvas: Canvas, dice: Dice, *, is_wet: bool) -> None:
    """Up to three bushes or stones (on water: stones) off the middle. They are of no class."""
    height, width = canvas.u.shape[1:]
    half_m = canvas.edge * min(height, width) / 2
    for likelihood in (0.55, 0.4, 0.3):
        there = dice.chance(likelihood)
        angle, reach = dice.uniform(0, 2 * np.pi), dice.uniform(0.62, 1.15) * half_m
        radius = dice.uniform(0.035, 0.085) * half_m
        bush, rock = dice.colour(BUSHES, vary=0.2), dice.colour(ROCKS, vary=0.2)
        is_bush = dice.chance(0.0 if is_wet else 0.65)
        window = canvas.window(
            reach * np.cos(angle), reach * np.sin(angle), max(2, round(0.14 * min(height, width)))
        )
        ragged = window.grain * radius * 0.22
        du, dv = window.sun_u * radius * 1.2, window.sun_v * radius * 1.2
        window.shadow(
            shapes.disc(window.u - du, window.v - dv, radius) + ragged, strength=there * 0.8
        )
        sunny = (window.u * window.sun_u + window.v * window.sun_v) / (radius * -2.2)
        colour = np.where(is_bush > 0, bush, rock) * (1 + 0.22 * sunny + 0.12 * window.grain)
        window.paint(shapes.disc(window.u, window.v, radius) + ragged, colour, there)
        window.put_back()
