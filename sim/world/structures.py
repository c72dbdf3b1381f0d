"""Building, solar array, tent camp and pylon from above. They know no ground."""

from __future__ import annotations

import numpy as np

from sim.world import shapes
from sim.world.canvas import Canvas
from sim.world.dice import Dice, Plane, palette

WALLS = palette("d9d2c2", "c9b79a", "e6e3dc", "a98d74", "b7b4ae")
PITCHED = palette("a3553b", "8a4632", "5b5d62", "7b5a48", "44505c", "b9714f")
DECKS = palette("b8b4aa", "8f9093", "d3d0c8", "9c8f7d")
CELLS = palette("16284d", "1c3260", "141d33", "23406e")
TENTS = palette("ece9e0", "d9d4c4", "6e7a4a", "2f6fb0", "d7872f", "c9b98f", "b8433a")


def building(canvas: Canvas, dice: Dice) -> None:
    """A block with walls that lean out of the picture, under a gable, a hip or a flat roof."""
    half_u, half_v = dice.uniform(5.5, 9.5), dice.uniform(3.6, 6.2)
    height = dice.uniform(4.0, 9.0)
    kind = dice.uniform(0, 1)
    is_flat, is_hip = (kind < 0.35).astype(np.float32), (kind > 0.68).astype(np.float32)
    wall, pitched, deck = dice.colour(WALLS), dice.colour(PITCHED), dice.colour(DECKS)
    sun_u, sun_v = canvas.sun_u * height, canvas.sun_v * height
    lean_u, lean_v = canvas.lean_u * height, canvas.lean_v * height
    canvas.shadow(shapes.swept_box(canvas.u, canvas.v, half_u, half_v, du=sun_u, dv=sun_v))
    sides = shapes.swept_box(canvas.u, canvas.v, half_u, half_v, du=lean_u, dv=lean_v)
    storeys = 1 - np.float32(0.25) * (np.sin(canvas.u * 2.4) * np.sin(canvas.v * 2.4) > 0.1)
    canvas.paint(sides, wall * 0.72 * storeys)
    u, v = canvas.u - lean_u, canvas.v - lean_v
    roof = shapes.box(u, v, half_u, half_v)
    # The roof falls away from the ridge: along v on the long faces, along u on a hip's two ends.
    is_end = ((np.abs(u) - half_u) > (np.abs(v) - half_v)) * is_hip
    tilt_u, tilt_v = np.sign(u) * is_end, np.sign(v) * (1 - is_end)
    lit = 1 - 0.34 * (tilt_u * canvas.sun_u + tilt_v * canvas.sun_v)
    course = 1 + 0.07 * np.sin((v + (u - v) * is_end) * 6.0)
    canvas.paint(roof, pitched * (lit * course), 1 - is_flat)
    ridge = np.maximum(np.abs(v), np.abs(u) - (half_u - half_v * is_hip))
    canvas.line(ridge, 0.35, (0.25, 0.2, 0.18), 0.5 * (1 - is_flat))
    canvas.paint(roof, wall * 1.02, is_flat)
    canvas.paint(roof + 0.55, deck * (1 + 0.05 * canvas.grain), is_flat)
    inner_shade = np.maximum(
        roof + 0.55,
        -shapes.box(u - 0.8 * canvas.sun_u, v - 0.8 * canvas.sun_v, half_u - 0.5, half_v - 0.5),
    )
    canvas.shadow(inner_shade, strength=0.8 * is_flat)
    at_u, at_v = dice.uniform(-0.55, 0.55) * half_u, dice.uniform(-0.5, 0.5) * half_v
    stack = 0.5 + 0.7 * is_flat
    canvas.shadow(
        shapes.swept_box(
            u - at_u, v - at_v, stack, stack, du=1.5 * canvas.sun_u, dv=1.5 * canvas.sun_v
        )
    )
    canvas.paint(shapes.box(u - at_u, v - at_v, stack, stack), (0.62, 0.58, 0.55))


def solar_array(canvas: Canvas, dice: Dice) -> None:
    """Rows of dark blue modules with pale frames, each row with its strip of shadow."""
    half_u = dice.uniform(7.0, 12.0)
    rows = np.floor(dice.uniform(2, 6))
    depth, pitch = dice.uniform(1.5, 2.1), dice.uniform(3.8, 5.2)
    middle = (rows - 1) / 2
    row = np.clip(np.rint(canvas.v / pitch + middle), 0, rows - 1) - middle
    v = canvas.v - row * pitch
    ragged = half_u - (np.abs(row) > middle - 0.6) * dice.uniform(0, 4.0) * dice.chance(0.5)
    canvas.shadow(
        shapes.swept_box(
            canvas.u, v, ragged, depth - 0.2, du=1.5 * canvas.sun_u, dv=1.5 * canvas.sun_v
        )
    )
    panel = shapes.box(canvas.u, v, ragged, depth)
    sheen = 1 + dice.uniform(0.0, 1.3) * np.clip(0.5 + (canvas.u * canvas.sun_u - v) / 14, 0, 1)
    canvas.paint(panel, dice.colour(CELLS) * sheen)
    module = np.maximum(1.25, canvas.edge * 3.2)
    frames = np.minimum(np.abs(np.mod(canvas.u, module) - module / 2), np.abs(v))
    share = canvas.cover(np.maximum(frames - 0.09, panel)) * 0.55
    canvas.blend(share, (0.62, 0.68, 0.76))
    canvas.line(panel + 0.06, 0.18, (0.80, 0.82, 0.84), 0.75)


def tent_camp(canvas: Canvas, dice: Dice) -> None:
    """Ridge tents in two loose rows: a bright and a dark slope each."""
    pitch_u, pitch_v = dice.uniform(5.0, 6.4), dice.uniform(5.0, 6.4)
    scene = dice.colour(TENTS)
    reach_px = canvas.u.shape[1] // 4
    for place_u in (-1, 0, 1):
        for place_v in (-0.5, 0.5):
            there = dice.chance(0.88)
            at_u = place_u * pitch_u + dice.uniform(-0.7, 0.7)
            at_v = place_v * pitch_v + dice.uniform(-0.7, 0.7)
            half_u, half_v = dice.uniform(1.7, 2.3), dice.uniform(1.35, 1.75)
            own = dice.colour(TENTS)
            cloth = np.where(dice.chance(0.65) > 0, scene, own)
            turn = dice.uniform(-0.3, 0.3) + dice.chance(0.3) * np.float32(np.pi / 2)
            window = canvas.window(at_u, at_v, reach_px)
            _tent(window, cloth, turn, half_u=half_u, half_v=half_v, there=there)
            window.put_back()


def _tent(
    canvas: Canvas, cloth: Plane, turn: Plane, *, half_u: Plane, half_v: Plane, there: Plane
) -> None:
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = canvas.u * cos + canvas.v * sin, canvas.v * cos - canvas.u * sin
    sun_u, sun_v = canvas.sun_u * cos + canvas.sun_v * sin, canvas.sun_v * cos - canvas.sun_u * sin
    canvas.shadow(
        shapes.swept_box(u, v, half_u - 0.2, 0.5, du=2.1 * sun_u, dv=2.1 * sun_v), strength=there
    )
    lit = 0.95 - 0.42 * np.clip(v * 4, -1, 1) * np.clip(sun_v * 1.6, -1, 1)
    canvas.paint(shapes.box(u, v, half_u, half_v), cloth * lit, there)
    door = np.maximum(np.abs(v) - (u - half_u + 1.0) * 0.6, u - half_u)
    canvas.paint(door, (0.16, 0.15, 0.14), 0.8 * there)


def pylon(canvas: Canvas, dice: Dice) -> None:
    """A lattice mast seen from above: legs, rings, arms, wires and a long latticed shadow."""
    u, v = canvas.u, canvas.v
    base, height = dice.uniform(2.6, 3.6), dice.uniform(11.0, 15.0)
    arm = dice.uniform(5.0, 7.5)
    steel = dice.uniform(0.55, 0.85) * np.ones((3, 1, 1, 1), np.float32)
    sun_u, sun_v = canvas.sun_u * height, canvas.sun_v * height
    top_u, top_v = canvas.lean_u * height, canvas.lean_v * height
    zero = np.zeros_like(top_u)
    # Shadow: the mast narrows towards its top, and the arms' shadow hangs near the tip.
    along = np.clip((u * sun_u + v * sun_v) / (sun_u**2 + sun_v**2), 0, 1)
    off_u, off_v = u - along * sun_u, v - along * sun_v
    across = np.sqrt(off_u * off_u + off_v * off_v)
    half = base * (1 - along) * 0.8 + 0.25
    lattice = np.abs(across - half) - 0.12
    rungs = np.abs(np.mod(along * 7, 1) - 0.5) * height / 7 - 0.12
    mast = np.minimum(lattice, np.maximum(rungs, across - half))
    for part, reach in ((0.95, 0.65), (0.75, 1.0)):
        at_u, at_v = u - part * sun_u, v - part * sun_v
        mast = np.minimum(mast, shapes.box(at_u, at_v, 0.3, arm * reach))
    canvas.shadow(mast, strength=0.95)
    canvas.paint(shapes.box(np.abs(u) - base, np.abs(v) - base, 0.6, 0.6), (0.66, 0.65, 0.62))
    for foot_u, foot_v in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        leg_u, leg_v = zero + foot_u * base, zero + foot_v * base
        leg = shapes.capsule(u - leg_u, v - leg_v, top_u - leg_u, top_v - leg_v, 0.0)
        canvas.line(leg, 0.34, steel)
    for level in (0.0, 0.3, 0.55):
        side = base * (1 - level)
        ring = shapes.box(u - level * top_u, v - level * top_v, side, side)
        canvas.line(ring, 0.26, steel * 0.9)
    for part, reach in ((0.75, 1.0), (0.95, 0.65)):
        at_u, at_v = u - part * top_u, v - part * top_v
        canvas.paint(shapes.box(at_u, at_v, 0.42, arm * reach), steel * 1.12)
        wires = np.abs(at_v) - arm * reach * 0.96
        canvas.line(wires, 0.14, (0.12, 0.12, 0.13), 0.85)
