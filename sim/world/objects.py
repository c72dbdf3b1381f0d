"""The ten classes: how each is drawn, from what height it is seen, and where it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.world.canvas import Canvas
from sim.world.dice import Dice, Plane
from sim.world.ground import GROUNDS
from sim.world.living import person_group, tree_line
from sim.world.structures import building, pylon, solar_array, tent_camp
from sim.world.vehicles import boat, bus, car, truck


@dataclass(frozen=True)
class Kind:
    draw: Callable[[Canvas, Dice], None]
    view_m: tuple[float, float]
    """Metres across the frame, lowest and highest flight."""
    reach: float
    """Part of the frame, around its middle, that the object and its shadow may touch."""
    grounds: tuple[float, float, float, float, float, float]
    """Odds of field, road, water, sand, snow, roofs."""
    road_m: tuple[float, float]
    """How far the middle of a road lies from the object's centre."""
    along_road: bool
    """Whether it is turned with the road, as traffic is."""


KINDS: dict[str, Kind] = {
    "car": Kind(car, (8.5, 15.0), 0.84, (0.15, 0.41, 0.0, 0.15, 0.14, 0.15), (0.0, 2.4), True),
    "truck": Kind(truck, (13.5, 21.0), 1.0, (0.16, 0.42, 0.0, 0.16, 0.14, 0.12), (0.0, 2.6), True),
    "bus": Kind(bus, (16.0, 22.0), 1.0, (0.13, 0.47, 0.0, 0.13, 0.14, 0.13), (0.0, 2.6), True),
    "boat": Kind(boat, (13.0, 20.0), 1.0, (0.04, 0.0, 0.76, 0.13, 0.05, 0.02), (9.0, 12.0), False),
    "person_group": Kind(
        person_group, (6.4, 9.5), 1.0, (0.25, 0.20, 0.0, 0.24, 0.16, 0.15), (0.0, 3.0), False
    ),
    "building": Kind(
        building, (26.0, 38.0), 1.0, (0.34, 0.16, 0.0, 0.18, 0.18, 0.14), (11.0, 16.0), True
    ),
    "tree_line": Kind(
        tree_line, (24.0, 34.0), 1.0, (0.44, 0.22, 0.0, 0.13, 0.21, 0.0), (7.0, 11.0), True
    ),
    "solar_array": Kind(
        solar_array, (24.0, 36.0), 1.0, (0.34, 0.06, 0.10, 0.18, 0.08, 0.24), (13.0, 17.0), True
    ),
    "tent_camp": Kind(
        tent_camp, (20.0, 28.0), 1.0, (0.34, 0.10, 0.0, 0.32, 0.16, 0.08), (10.0, 13.0), False
    ),
    "pylon": Kind(
        pylon, (20.0, 30.0), 1.0, (0.42, 0.12, 0.08, 0.18, 0.16, 0.04), (7.0, 12.0), True
    ),
}

CLASSES: tuple[str, ...] = tuple(KINDS)

_ODDS = np.cumsum([kind.grounds for kind in KINDS.values()], axis=1, dtype=np.float32)
_VIEW = np.array([kind.view_m for kind in KINDS.values()], np.float32)
_ROAD = np.array([kind.road_m for kind in KINDS.values()], np.float32)
_ALONG = np.array([kind.along_road for kind in KINDS.values()])


def ground_of(labels: np.ndarray, dice: Dice) -> np.ndarray:
    """Index into GROUNDS for each frame, int [n]."""
    return np.minimum((dice.many(1) >= _ODDS[labels]).sum(axis=1), len(GROUNDS) - 1)


def view_of(labels: np.ndarray, dice: Dice) -> Plane:
    """Metres across each frame, [n, 1, 1]."""
    low, high = _VIEW[labels, 0], _VIEW[labels, 1]
    return (low * (high / low) ** dice.many(1)[:, 0])[:, None, None].astype(np.float32)


def road_of(labels: np.ndarray, dice: Dice) -> tuple[Plane, Plane]:
    """Metres from object to road, and the angle between them, [n, 1, 1] each."""
    low, high = _ROAD[labels, 0], _ROAD[labels, 1]
    away = (low + (high - low) * dice.many(1)[:, 0])[:, None, None] * dice.sign()
    crooked = dice.uniform(-np.pi, np.pi)
    straight = dice.uniform(-0.07, 0.07)
    return away, np.where(_ALONG[labels][:, None, None], straight, crooked)
