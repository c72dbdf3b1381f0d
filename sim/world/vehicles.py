"""Car, truck, bus and boat from above, in metres along their heading. They know no ground."""

from __future__ import annotations

import numpy as np

from sim.world import shapes
from sim.world.canvas import Canvas
from sim.world.dice import Dice, palette

CAR_PAINTS = palette(
    "e8e8e6",
    "b9bcc0",
    "70747a",
    "26282c",
    "b3261e",
    "2350a0",
    "d9b21f",
    "2f5d43",
    "d06a1c",
    "7fa6c8",
)
CAB_PAINTS = palette("e6e4de", "b0281f", "1f4f9c", "d8a21a", "2c6b46", "d9641e", "7a7d82")
BOX_PAINTS = palette("ededea", "dcdcd6", "c3c6c8", "3f6ea8", "a8382c", "d8b23a", "5c7f5c", "8f9498")
BUS_PAINTS = palette("e2b21c", "c63a2b", "e9e9e4", "2f6fb5", "3c8a5c", "e07b27", "d5d9dc")
HULLS = palette("f2f2ee", "e4e8ea", "c9403a", "2b4f86", "e5d9bf", "2e6f6a", "3a3d42")
DECKS = palette("c8a06a", "e9e6dc", "b58a58", "d7dcde")
LOADS = palette("8a6a48", "5c5a57", "c4a878", "4e5b3a", "b8b4ab")
GLASS = (0.10, 0.13, 0.17)


def car(canvas: Canvas, dice: Dice) -> None:
    """A rounded body with a glass belt around a roof of its own colour."""
    u, v = canvas.u, canvas.v
    half_l, half_w = dice.uniform(1.95, 2.45), dice.uniform(0.88, 1.0)
    paint = dice.colour(CAR_PAINTS)
    canvas.shadow(
        shapes.swept_box(
            u, v, half_l - 0.2, half_w - 0.1, du=1.4 * canvas.sun_u, dv=1.4 * canvas.sun_v
        )
    )
    canvas.shadow(shapes.round_box(u, v, half_l + 0.1, half_w + 0.1, 0.4), strength=0.5, blur=0.4)
    gleam = 1 - 0.10 * (u * canvas.sun_u + v * canvas.sun_v)
    body = shapes.round_box(u, v, half_l, half_w, 0.55)
    canvas.paint(body, paint * gleam)
    cabin = dice.uniform(-0.45, -0.1)
    cabin_l = dice.uniform(1.15, 1.5)
    canvas.paint(shapes.round_box(u - cabin, v, cabin_l, half_w - 0.14, 0.35), GLASS)
    roof_l = cabin_l - dice.uniform(0.42, 0.62)
    canvas.paint(
        shapes.round_box(u - cabin + 0.12, v, roof_l, half_w - 0.26, 0.25), paint * gleam * 1.08
    )
    lamps = np.abs(v) - (half_w - 0.28)
    canvas.paint(shapes.box(u - half_l + 0.18, lamps, 0.13, 0.18), (1.0, 0.98, 0.9), 0.8)
    canvas.paint(shapes.box(u + half_l - 0.12, lamps, 0.11, 0.2), (0.75, 0.08, 0.06), 0.9)


def truck(canvas: Canvas, dice: Dice) -> None:
    """A cab, a gap, and a long box or an open load."""
    u, v = canvas.u, canvas.v
    half_l, half_w = dice.uniform(3.2, 5.4), dice.uniform(1.15, 1.3)
    cab_l = dice.uniform(0.85, 1.15)
    gap = dice.uniform(0.25, 0.6)
    cab_u = half_l - cab_l
    box_l = half_l - cab_l - gap / 2
    box_u = -cab_l - gap / 2
    is_open = dice.chance(0.3)
    height = 3.4 - 1.4 * is_open
    sun_u, sun_v, lean_u, lean_v = canvas.sun_u, canvas.sun_v, canvas.lean_u, canvas.lean_v
    reach = shapes.swept_box(u - box_u, v, box_l, half_w, du=height * sun_u, dv=height * sun_v)
    cab_reach = shapes.swept_box(u - cab_u, v, cab_l, half_w - 0.1, du=2.4 * sun_u, dv=2.4 * sun_v)
    canvas.shadow(np.minimum(reach, cab_reach))
    canvas.paint(shapes.box(u, v, half_l - 0.3, half_w - 0.35), (0.13, 0.13, 0.14))
    cab, load = dice.colour(CAB_PAINTS), dice.colour(BOX_PAINTS)
    canvas.paint(shapes.round_box(u - cab_u, v, cab_l, half_w - 0.08, 0.3), cab)
    canvas.paint(shapes.box(u - cab_u - cab_l * 0.62, v, 0.27, half_w - 0.25), GLASS)
    canvas.paint(shapes.box(u - cab_u + cab_l * 0.3, v, cab_l * 0.35, half_w - 0.4), cab * 1.15)
    canvas.paint(
        shapes.swept_box(u - box_u, v, box_l, half_w, du=height * lean_u, dv=height * lean_v),
        load * 0.55,
    )
    top_u, top_v = u - box_u - height * lean_u, v - height * lean_v
    ribs = 1 + 0.09 * np.sin(top_u * dice.uniform(4.0, 6.5)) - 0.05 * top_v * sun_v
    canvas.paint(shapes.box(top_u, top_v, box_l, half_w), load * ribs)
    inside = shapes.round_box(top_u, top_v, box_l - 0.22, half_w - 0.22, 0.1)
    canvas.paint(inside, dice.colour(LOADS) * (0.95 + 0.16 * canvas.grain), is_open)
    canvas.line(
        np.maximum(np.abs(top_v), np.abs(top_u) - box_l), 0.12, (0.4, 0.4, 0.4), 0.3 * (1 - is_open)
    )


def bus(canvas: Canvas, dice: Dice) -> None:
    """One long roof with round corners: cooling units, hatches, glass down the side that shows."""
    u, v = canvas.u, canvas.v
    half_l, half_w = dice.uniform(4.9, 6.3), dice.uniform(1.22, 1.34)
    paint = dice.colour(BUS_PAINTS)
    sun_u, sun_v = canvas.sun_u, canvas.sun_v
    lean_u, lean_v = 2.6 * canvas.lean_u, 2.6 * canvas.lean_v
    canvas.shadow(
        shapes.swept_box(u, v, half_l - 0.15, half_w - 0.1, du=2.9 * sun_u, dv=2.9 * sun_v)
    )
    canvas.paint(
        shapes.swept_box(u, v, half_l - 0.1, half_w - 0.05, du=lean_u, dv=lean_v), paint * 0.7
    )
    canvas.paint(
        shapes.swept_box(
            u - lean_u / 2,
            v - lean_v / 2,
            half_l - 0.1,
            half_w - 0.05,
            du=lean_u / 2,
            dv=lean_v / 2,
        ),
        GLASS,
    )
    u, v = u - lean_u, v - lean_v
    gleam = 1 - 0.12 * v * sun_v
    canvas.paint(shapes.round_box(u, v, half_l, half_w, 0.45), paint * gleam)
    roof = np.where(dice.chance(0.5) > 0, paint * 1.2, np.float32(0.86))
    canvas.paint(shapes.round_box(u, v, half_l - 0.55, half_w - 0.28, 0.25), roof * gleam)
    canvas.paint(shapes.round_box(u - half_l + 0.38, v, 0.24, half_w - 0.14, 0.15), GLASS)
    unit = dice.uniform(0.5, 0.75) * half_l
    aside = np.abs(u + dice.uniform(-0.5, 0.5)) - unit
    grey = (0.70, 0.72, 0.74)
    canvas.shadow(shapes.box(aside - 0.15 * sun_u, v - 0.3 * sun_v, 0.9, 0.72), strength=0.7)
    canvas.paint(shapes.round_box(aside, v, 0.9, 0.7, 0.15), grey)
    canvas.paint(shapes.box(aside, np.abs(v) - 0.33, 0.6, 0.17), (0.35, 0.37, 0.4), 0.8)
    canvas.paint(
        shapes.box(np.abs(u) - 0.18 * half_l, v, 0.35, 0.35), (0.5, 0.5, 0.5), dice.chance(0.6)
    )


def boat(canvas: Canvas, dice: Dice) -> None:
    """A pointed hull around a deck, with a cabin or thwarts, and a wake when under way."""
    u, v = canvas.u, canvas.v
    half_l, slim = dice.uniform(2.8, 5.6), dice.uniform(0.30, 0.40)
    half_w = half_l * slim
    bow = dice.uniform(1.0, 2.4)
    speed = dice.chance(0.6) * dice.uniform(0.3, 1.0)
    behind = np.maximum(-half_l * 0.6 - u, 0)
    spread = half_w * 0.7 + behind * 0.35
    froth = np.clip(1.2 - np.abs(np.abs(v) - spread) / (0.25 + behind * 0.12), 0, 1)
    churn = np.clip(1 - np.abs(v) / (half_w * 0.8 + behind * 0.12), 0, 1)
    wake = (0.8 * froth + 0.9 * churn) * np.exp(behind / (-2.2 * half_l)) * (behind > 0)
    # Foam needs water below: blue above red. A beached boat keeps its paint and leaves no wake.
    on_water = canvas.pixels[2] > canvas.pixels[0] * 1.12
    canvas.blend(
        np.clip(wake * (0.75 + 0.35 * canvas.grain), 0, 1) * speed * on_water, (0.88, 0.94, 0.96)
    )
    drop_u, drop_v = 1.1 * canvas.sun_u, 1.1 * canvas.sun_v
    canvas.shadow(shapes.hull(u - drop_u, v - drop_v, half_l, half_w, bow), strength=0.85)
    side, deck = dice.colour(HULLS), dice.colour(DECKS)
    canvas.paint(shapes.hull(u, v, half_l, half_w, bow), side)
    inner = shapes.hull(u + 0.1, v, half_l - 0.5, half_w - 0.42, bow)
    canvas.paint(inner, deck * (1 + 0.07 * np.sin(v * 9)))
    has_cabin = dice.chance(0.7)
    cabin_l, cabin_w = half_l * dice.uniform(0.2, 0.36), half_w * dice.uniform(0.48, 0.62)
    cabin_u = u - half_l * dice.uniform(-0.25, 0.1)
    canvas.shadow(
        shapes.swept_box(cabin_u, v, cabin_l, cabin_w, du=canvas.sun_u, dv=canvas.sun_v),
        strength=0.8 * has_cabin,
    )
    canvas.paint(
        shapes.round_box(cabin_u, v, cabin_l, cabin_w, 0.25), (0.95, 0.95, 0.93), has_cabin
    )
    canvas.paint(
        shapes.round_box(cabin_u - cabin_l * 0.7, v, cabin_l * 0.26, cabin_w * 0.85, 0.1),
        GLASS,
        has_cabin,
    )
    thwart = np.abs(np.abs(u + 0.2 * half_l) - 0.35 * half_l) - 0.2
    canvas.paint(np.maximum(thwart, inner), side * 0.75, 1 - has_cabin)
    canvas.paint(shapes.box(u + half_l, v, 0.45, 0.3), (0.12, 0.12, 0.13))
