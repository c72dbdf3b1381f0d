"""The contact sheet: every class over several grounds, then every condition growing worse."""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sim.world.conditions import CONDITIONS, under
from sim.world.objects import CLASSES
from sim.world.renderer import render

FRAME, GAP, MARGIN, LABEL, HEAD = 86, 3, 18, 130, 62
STEP = FRAME + GAP
NUM_COLUMNS = 8
SEVERITIES = (0.0, 0.3, 0.6, 0.9)
SHOWN = ("car", "solar_array", "boat", "building", "bus", "tent_camp")
PAPER, INK, FAINT = (250, 250, 248), (28, 30, 34), (110, 114, 120)


def contact_sheet(path: str | PathLike[str], *, seed: int = 0) -> None:
    """Write a PNG: a row a class, then a row a condition with two frames at four severities."""
    weather = CONDITIONS[1:]
    lower = HEAD + len(CLASSES) * STEP
    width = 2 * MARGIN + LABEL + NUM_COLUMNS * STEP
    sheet = Image.new("RGB", (width, lower + HEAD + len(weather) * STEP + MARGIN), PAPER)
    _write(sheet, "Ten classes", 0, size=18)
    for row, name in enumerate(CLASSES):
        frames = render(np.full(NUM_COLUMNS, row), seed=seed + row, size=FRAME)
        _row(sheet, name, frames, HEAD + row * STEP)
    _write(sheet, "Six conditions", lower, size=18)
    for column in range(NUM_COLUMNS):
        severity = SEVERITIES[column % len(SEVERITIES)]
        _write(sheet, f"{severity:g}", lower, column=column)
    for row, name in enumerate(weather):
        chosen = [CLASSES.index(SHOWN[(row + shift) % len(SHOWN)]) for shift in (0, 3)]
        clear = render(chosen, seed=seed + 20 + row, size=FRAME)
        worse = [under(clear, name, severity, seed=seed) for severity in SEVERITIES]
        frames = np.stack(worse, axis=1).reshape(NUM_COLUMNS, FRAME, FRAME, 3)
        _row(sheet, name, frames, lower + HEAD + row * STEP)
    # 256 dithered colours keep the file small enough for a README.
    few = sheet.quantize(palette=_palette(sheet), dither=Image.Dither.FLOYDSTEINBERG)
    few.save(path, "PNG", optimize=True)


def _palette(sheet: Image.Image) -> Image.Image:
    """256 colours shared out by roughly the cube root of use: sand must not starve a red car."""
    pixels = np.asarray(sheet).reshape(-1, 3)
    bins = (pixels >> 3).astype(np.intp) @ np.array([1024, 32, 1])
    _, first, uses = np.unique(bins, return_index=True, return_counts=True)
    sample = np.repeat(pixels[first], np.ceil(uses**0.35).astype(np.intp), axis=0)
    return Image.fromarray(sample[None]).quantize(256, kmeans=4)


def _write(
    sheet: Image.Image, text: str, top: int, *, size: int = 15, column: int | None = None
) -> None:
    """A heading at the left, or a faint one over a column."""
    left = MARGIN if column is None else MARGIN + LABEL + column * STEP + FRAME // 2
    anchor = "lb" if column is None else "mb"
    colour = INK if column is None else FAINT
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top + HEAD - 8), text, colour, ImageFont.load_default(size), anchor)


def _row(sheet: Image.Image, name: str, frames: NDArray[np.uint8], top: int) -> None:
    font = ImageFont.load_default(15)
    at = (MARGIN, top + FRAME // 2)
    ImageDraw.Draw(sheet).text(at, name.replace("_", " "), INK, font, "lm")
    for column, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame), (MARGIN + LABEL + column * STEP, top))
