"""The drone world: same seed, same bytes; weather hurts in order; classes look different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sim.world import CLASSES, CONDITIONS, contact_sheet, render, under

pytestmark = pytest.mark.unit

WEATHER = [condition for condition in CONDITIONS if condition != "clear"]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render(np.arange(20) % len(CLASSES), seed=3)


def test_ten_classes_and_seven_conditions_keep_their_order() -> None:
    """Trained heads and saved results count on these positions."""
    assert CLASSES == (
        "car",
        "truck",
        "bus",
        "boat",
        "person_group",
        "building",
        "tree_line",
        "solar_array",
        "tent_camp",
        "pylon",
    )
    assert CONDITIONS == ("clear", "fog", "rain", "night", "snow", "dust", "motion_blur")


@pytest.mark.parametrize("size", [16, 33, 64])
def test_render_gives_uint8_frames_of_the_asked_size(size: int) -> None:
    frames = render([0, 9, 4], seed=0, size=size)
    assert frames.dtype == np.uint8
    assert frames.shape == (3, size, size, 3)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(frames: np.ndarray) -> None:
    again = render(np.arange(20) % len(CLASSES), seed=3)
    other = render(np.arange(20) % len(CLASSES), seed=4)
    assert np.array_equal(frames, again)
    assert not np.array_equal(frames, other)


def test_a_frame_does_not_depend_on_its_neighbours() -> None:
    """300 frames cross the renderer's blocks and groups; all but every seventh change class."""
    labels = np.arange(300) % len(CLASSES)
    mixed = np.random.default_rng(0).integers(0, len(CLASSES), 300)
    mixed[::7] = labels[::7]
    assert np.array_equal(render(labels, seed=1)[::7], render(mixed, seed=1)[::7])
    assert np.array_equal(render(labels, seed=1)[:5], render(labels[:5], seed=1))


def test_no_frames_are_no_frames() -> None:
    nothing = render([], seed=0)
    assert nothing.shape == (0, 64, 64, 3)
    assert under(nothing, "fog", 0.5, seed=0).shape == (0, 64, 64, 3)


@pytest.mark.parametrize("condition", WEATHER)
def test_weather_changes_more_the_worse_it_is(frames: np.ndarray, condition: str) -> None:
    change = [
        np.abs(under(frames, condition, severity, seed=5).astype(int) - frames).mean()
        for severity in (0.1, 0.3, 0.5, 0.7, 1.0)
    ]
    assert change[0] > 0
    assert change == sorted(change)
    assert change[3] > 8


@pytest.mark.parametrize("condition", CONDITIONS)
def test_severity_zero_gives_an_equal_new_array(frames: np.ndarray, condition: str) -> None:
    same = under(frames, condition, 0.0, seed=5)
    assert np.array_equal(same, frames)
    assert not np.shares_memory(same, frames)


@pytest.mark.parametrize("condition", WEATHER)
@pytest.mark.parametrize("shape", [(33, 47), (16, 16), (150, 200)])
def test_weather_works_on_photographs_of_any_shape(condition: str, shape: tuple[int, int]) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    before = photos.copy()
    after = under(photos, condition, 0.6, seed=1)
    assert after.shape == photos.shape
    assert after.dtype == np.uint8
    assert np.array_equal(photos, before)
    assert not np.array_equal(after, photos)


@pytest.mark.parametrize("condition", WEATHER)
def test_weather_over_a_frame_does_not_depend_on_its_neighbours(
    frames: np.ndarray, condition: str
) -> None:
    """14 of 20 frames leave the last group of twelve with two frames instead of eight."""
    whole = under(frames, condition, 0.7, seed=2)
    assert np.array_equal(whole[:14], under(frames[:14], condition, 0.7, seed=2))
    assert not np.array_equal(whole, under(frames, condition, 0.7, seed=3))


@pytest.mark.parametrize(
    ("labels", "size", "message"),
    [
        ([10], 64, "10 to 10, expected 0 to 9"),
        ([-1, 2], 64, "-1 to 2, expected 0 to 9"),
        ([[1, 2]], 64, r"\[1, 2\], expected int \[B\]"),
        ([0.5], 64, "float64"),
        ([0], 15, "size is 15, expected at least 16"),
    ],
)
def test_render_names_what_is_wrong(labels: list[object], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(np.array(labels), seed=0, size=size)


@pytest.mark.parametrize(
    ("shape", "dtype", "condition", "severity", "message"),
    [
        ((1, 32, 32, 3), np.uint8, "hail", 0.5, "'hail', expected one of clear, fog"),
        ((1, 32, 32, 3), np.uint8, "fog", 1.5, "1.5, expected 0 to 1"),
        ((1, 32, 32, 3), np.uint8, "fog", float("nan"), "nan, expected 0 to 1"),
        ((1, 32, 32, 3), np.float32, "fog", 0.5, "float32"),
        ((32, 32, 3), np.uint8, "fog", 0.5, r"\[32, 32, 3\], expected uint8 \[B, H, W, 3\]"),
        ((1, 32, 15, 3), np.uint8, "fog", 0.5, "32 x 15, expected at least 16 x 16"),
    ],
)
def test_under_names_what_is_wrong(
    shape: tuple[int, ...], dtype: type, condition: str, severity: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        under(np.zeros(shape, dtype), condition, severity, seed=0)


def test_negative_seed_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        render([0], seed=-1)
    with pytest.raises(ValueError, match="seed is -1"):
        under(frames, "fog", 0.5, seed=-1)


def test_classes_can_be_told_apart_but_not_by_the_ground_alone() -> None:
    """Ridge regression on what turns with no heading: colour and edge histograms over rings.

    Chance is 0.1. The middle of the frame, where the object is, must say more than its rim.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), 1500)
    seen = render(labels, seed=11)
    middle = _ridge_accuracy(_histograms(seen, inside=True), labels)
    rim = _ridge_accuracy(_histograms(seen, inside=False), labels)
    assert middle > 0.45
    assert middle > rim + 0.1


def _histograms(frames: np.ndarray, *, inside: bool) -> np.ndarray:
    ticks = np.arange(64) - 31.5
    away = np.hypot(ticks[:, None], ticks)
    rings = [(0, 8), (8, 16), (16, 24)] if inside else [(30, 36), (36, 45)]
    grey = frames.mean(axis=3)
    slope = np.hypot(*np.gradient(grey, axis=(1, 2)))
    parts = []
    for low, high in rings:
        ring = (away >= low) & (away < high)
        for values, edges in ((frames[..., 0], 256), (frames[..., 2], 256), (slope, 100)):
            bins = np.digitize(values[:, ring], np.linspace(0, edges, 11)[1:-1])
            parts.append(np.stack([(bins == k).mean(axis=1) for k in range(10)], axis=1))
    return np.concatenate(parts, axis=1)


def _ridge_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Trained on the first two thirds, measured on the rest."""
    split = len(labels) * 2 // 3
    inputs = np.sqrt(features)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    known, wanted = inputs[:split], np.eye(len(CLASSES))[labels[:split]]
    weights = np.linalg.solve(known.T @ known + np.eye(known.shape[1]), known.T @ wanted)
    return float(((inputs[split:] @ weights).argmax(axis=1) == labels[split:]).mean())


def test_contact_sheet_is_a_readable_png(tmp_path: Path) -> None:
    path = tmp_path / "world.png"
    contact_sheet(path)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 600
    assert path.stat().st_size < 600_000
