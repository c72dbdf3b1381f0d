"""Groups of people and lines of trees from above. They know nothing of what they stand on."""

from __future__ import annotations

import numpy as np

from sim.world import shapes
from sim.world.canvas import Canvas
from sim.world.dice import Dice, Plane, palette

CLOTHES = palette(
    "b8352c",
    "2f5fa8",
    "e4e2dc",
    "2b2d33",
    "d8a52a",
    "3f7a4d",
    "8a4f8f",
    "d9772e",
    "5b6470",
    "f08fa0",
)
HAIR = palette("2a1d14", "17130f", "5a3d22", "b08a50", "8c8c8a", "c9b37a")
LEAVES = palette("33501f", "45652a", "2a4526", "5a7030", "6c7a35", "8c6a2a")

NUM_PEOPLE = 7
NUM_TREES = 9


def person_group(canvas: Canvas, dice: Dice) -> None:
    """Four to seven people: shoulders, a head on top, and the long shadow that gives them away."""
    scatter = dice.uniform(1.5, 2.3)
    stretch = dice.uniform(0.7, 1.3)
    spots: list[tuple[Plane, Plane, Plane]] = []
    cast = np.full_like(canvas.u, 9)
    stride_u, stride_v = 1.5 * canvas.sun_u, 1.5 * canvas.sun_v
    for number in range(NUM_PEOPLE):
        there = dice.chance(0.7 if number >= 4 else 1.0)
        # A ring of six around one, so that people seldom stand inside each other.
        angle = np.float32(number * np.pi / 3) + dice.uniform(-0.4, 0.4)
        reach = scatter * dice.uniform(0.65, 1.15) * (number < 6)
        at_u, at_v = reach * np.cos(angle) * stretch, reach * np.sin(angle) / stretch
        spots.append((at_u, at_v, there))
        figure = shapes.capsule(canvas.u - at_u, canvas.v - at_v, stride_u, stride_v, 0.2)
        cast = np.minimum(cast, figure + 9 * (1 - there))
    canvas.shadow(cast)
    reach_px = canvas.u.shape[1] // 8
    for at_u, at_v, there in spots:
        window = canvas.window(at_u, at_v, reach_px)
        _person(window, dice, there)
        window.put_back()


def _person(canvas: Canvas, dice: Dice, there: Plane) -> None:
    turn = dice.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    u, v = canvas.u * cos + canvas.v * sin, canvas.v * cos - canvas.u * sin
    cloth, hair = dice.colour(CLOTHES, vary=0.15), dice.colour(HAIR, vary=0.15)
    lit = 1 - 0.5 * (canvas.u * canvas.sun_u + canvas.v * canvas.sun_v)
    canvas.paint(shapes.ellipse(u, v, 0.25, 0.44), cloth * lit, there)
    canvas.paint(shapes.disc(u - 0.05, v, 0.17), hair, there)


def tree_line(canvas: Canvas, dice: Dice) -> None:
    """Crowns in a row, lit on the sun's side, over one ragged shadow."""
    u, v, grain = canvas.u, canvas.v, canvas.grain
    step, girth = dice.uniform(3.0, 4.2), dice.uniform(1.9, 2.7)
    bend = dice.uniform(-0.02, 0.02)
    shade_u, shade_v = 3.2 * canvas.sun_u, 3.2 * canvas.sun_v
    # The canopy is as high as the highest dome; how high it is a step sunwards tells the slope.
    ahead_u, ahead_v = 0.7 * canvas.sun_u, 0.7 * canvas.sun_v
    dome, sunward, cast = (np.full_like(u, -9) for _ in range(3))
    for number in range(NUM_TREES):
        place = number - (NUM_TREES - 1) / 2
        at_u = step * (place + dice.uniform(-0.3, 0.3))
        at_v = bend * at_u * at_u + dice.uniform(-0.8, 0.8)
        radius = girth * dice.uniform(0.7, 1.25)
        tall = 1 / (radius * radius)
        du, dv = u - at_u, v - at_v
        np.maximum(dome, 1 - (du * du + dv * dv) * tall, out=dome)
        np.maximum(sunward, 1 - ((du + ahead_u) ** 2 + (dv + ahead_v) ** 2) * tall, out=sunward)
        np.maximum(cast, 1 - ((du - shade_u) ** 2 + (dv - shade_v) ** 2) * tall, out=cast)
    ragged = 0.16 * grain
    outline = girth / -2
    canvas.shadow((cast + ragged) * outline)
    lit = 0.80 + np.clip(0.55 * (dome - sunward), -0.45, 0.6) + 0.17 * grain + 0.25 * dome
    canvas.paint((dome + ragged) * outline, dice.colour(LEAVES, vary=0.15) * np.maximum(lit, 0.15))
