"""Sources of frames: what they give, and what they say of bad files."""

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from sim import world
from vehicle_agent.sensors import AnySensor, SensorError

pytestmark = pytest.mark.unit


def sensor(classes=("a", "b"), **table):
    return TypeAdapter(AnySensor).validate_python(table).build(classes)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "frames.npz"
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    np.savez(path, images=images, labels=np.arange(10) % 2, wrong=np.zeros((10, 4)))
    return path


def test_archive_gives_every_frame_once_an_epoch(archive):
    source = sensor(kind="labelled_npz", path=archive)
    frames = source.read(20)
    numbers = frames.images[:, 0, 0, 0]
    assert sorted(numbers[:10]) == sorted(numbers[10:]) == list(range(10))
    np.testing.assert_array_equal(frames.labels, numbers % 2)
    assert source.num_frames == 10


def test_rows_choose_a_share(archive, tmp_path):
    np.save(tmp_path / "rows.npy", np.array([3, 5]))
    source = sensor(kind="labelled_npz", path=archive, rows=tmp_path / "rows.npy")
    assert set(source.read(8).images[:, 0, 0, 0]) == {3, 5}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"path": "/gone.npz"}, "/gone.npz is missing"),
        ({"images": "pixels"}, "expected 'pixels' and 'labels'"),
        ({"images": "wrong"}, r"float64 \[10, 4\], expected uint8"),
        ({"labels": "wrong"}, r"expected integers \[10\]"),
        ({"rows": "/gone.npy"}, "/gone.npy cannot be read"),
    ],
)
def test_archive_errors_are_named(archive, table, says):
    with pytest.raises(SensorError, match=says):
        sensor(**{"kind": "labelled_npz", "path": archive, **table})


def test_labels_beyond_the_model_are_refused(archive):
    with pytest.raises(SensorError, match="labels 0 to 1, the model has classes 0 to 0"):
        sensor(("a",), kind="labelled_npz", path=archive)


def test_a_text_file_is_no_archive(tmp_path):
    path = tmp_path / "x.npz"
    path.write_text("hello")
    with pytest.raises(SensorError, match="cannot be read"):
        sensor(kind="labelled_npz", path=path)


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (90, 60), (colour, 0, 0)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_folder_labels_by_name_and_skips_the_damaged(folder):
    (folder / "a" / "9.jpg").write_bytes(b"\xff\xd8\xffnot a picture")
    frames = sensor(kind="image_folder", root=folder, size=32).read(12)
    assert frames.images.shape == (12, 32, 32, 3)
    np.testing.assert_array_equal(frames.images[:, 0, 0, 0] > 100, frames.labels == 1)


def test_drone_camera_repeats_itself_for_a_seed_and_follows_its_shares():
    shares = [0.0] * 10
    shares[3] = 1.0
    table = {"kind": "sim.sensors.drone_camera", "seed": 5, "shares": shares, "condition": "fog"}
    first, again = (sensor(world.CLASSES, **table).read(6) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    assert set(first.labels) == {3}
    stream = sensor(world.CLASSES, **table)
    assert (stream.read(6).images != stream.read(6).images).any()


def test_drone_camera_shows_its_own_classes_only():
    with pytest.raises(SensorError, match="the model has"):
        sensor(("a", "b"), kind="sim.sensors.drone_camera")


def test_weather_is_put_on_any_source(archive):
    inner = {"kind": "labelled_npz", "path": archive}
    foggy = sensor(kind="sim.sensors.weathered", source=inner, condition="fog", severity=0.7)
    plain = sensor(**inner)
    seen, clear = foggy.read(10), plain.read(10)
    np.testing.assert_array_equal(seen.labels, clear.labels)
    assert (seen.images != clear.images).mean() > 0.5


def test_unknown_weather_is_named():
    with pytest.raises(ValidationError, match="condition"):
        sensor(world.CLASSES, kind="sim.sensors.drone_camera", condition="hail")


@pytest.mark.parametrize("seen", [0, 3, 6, 20])
def test_a_source_goes_on_after_a_restart_where_it_was(folder, archive, seen):
    for table in (
        {"kind": "image_folder", "root": folder, "size": 32},
        {"kind": "labelled_npz", "path": archive},
        {"kind": "sim.sensors.weathered", "source": {"kind": "labelled_npz", "path": archive}}
        | {"condition": "fog", "severity": 0.0},
    ):
        lived, restarted = sensor(**table), sensor(**table)
        if seen:
            lived.read(seen)
        restarted.skip(seen)
        np.testing.assert_array_equal(lived.read(9).labels, restarted.read(9).labels)


def test_a_drone_camera_shows_other_frames_after_a_restart():
    table = {"kind": "sim.sensors.drone_camera", "seed": 5}
    first, again = sensor(world.CLASSES, **table), sensor(world.CLASSES, **table)
    again.skip(6)
    assert (first.read(6).images != again.read(6).images).any()
