"""Folders of frames as they are found on vehicles: what is read, what is passed over, what is said of it."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from sim.sensors.weathered import Config as Weathered
from tests import pictures_made as made
from vehicle_agent.sensors import MAX_SECOND, Frames, SensorError, checked, opened, passed_over
from vehicle_agent.sensors._folder_scan import Catalogue, scan
from vehicle_agent.sensors.image_folder import Config

pytestmark = pytest.mark.unit

CLASSES = ("car", "truck")
GOOD = {name: made.saved(Image.new("RGB", (40, 30), made.COLOURS[name])) for name in made.COLOURS}


def folder(root, **settings):
    return Config(root=root, size=16, **{"rescan_s": 0, **settings}).build(CLASSES)


def put(root, name, data=GOOD["red"]):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reds(frames):
    """How many of the frames are red; all others are blue."""
    return int((frames.images[:, 0, 0, 0] > 128).sum())


def test_an_empty_folder_is_waited_for_and_named(tmp_path):
    source = folder(tmp_path / "frames", rescan_s=3600)
    with pytest.raises(SensorError, match=r"the folder .*frames is not there"):
        source.read(1)
    (tmp_path / "frames").mkdir()
    with pytest.raises(SensorError, match="no pictures in folders named car, truck"):
        folder(tmp_path / "frames").read(1)
    assert source.num_frames == 0
    put(tmp_path, "frames/car/1.png")
    assert len(source.read(3).images) == 3


def test_one_damaged_file_is_counted_once_and_read_once_it_is_mended(tmp_path):
    """Ten files, one damaged: 300 frames are 33 epochs of the nine sound ones."""
    for number in range(9):
        put(tmp_path, f"car/{number}.png")
    bad = put(tmp_path, "truck/9.png", GOOD["blue"][:-20])
    source = folder(tmp_path)
    assert set(source.read(300).labels) == {0}
    assert source.note.startswith(
        "frames passed over: 1 damaged; the last: truck/9.png: not a whole"
    )
    assert "ends early" in source.note
    bad.write_bytes(GOOD["blue"])
    assert set(source.read(300).labels) == {0, 1}
    assert source.note == ""


def test_a_folder_of_damaged_files_is_said_and_tried_again(tmp_path):
    put(tmp_path, "car/1.png", b"no")
    source = folder(tmp_path)
    for _ in range(2):
        with pytest.raises(SensorError, match=r"no readable picture; the last: car/1.png"):
            source.read(1)
    put(tmp_path, "car/2.png")
    assert len(source.read(4).images) == 4
    assert "1 damaged" in source.note


def test_what_is_no_frame_is_passed_over_without_opening_it(tmp_path):
    put(tmp_path, "car/1.png")
    put(tmp_path, "car/._1.png", b"\0\5\x16\7")
    put(tmp_path, "car/.2.png")
    put(tmp_path, "car/.DS_Store", b"x")
    put(tmp_path, "car/notes.txt", b"x")
    put(tmp_path, "car/3.heic", b"x")
    put(tmp_path, "__MACOSX/car/._1.png", b"x")
    put(tmp_path, ".trash/car/1.png")
    os.mkfifo(tmp_path / "car" / "pipe.jpg")
    (tmp_path / "car" / "folder.jpg").mkdir()
    (tmp_path / "car" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "car" / "linked.png").symlink_to(tmp_path / "car" / "1.png")
    (tmp_path / "car" / "around").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "car" / "s.jpg"))
        source = folder(tmp_path)
        assert source.num_frames == 2  # 1.png and the link to it
        assert len(source.read(4).images) == 4
    assert sorted(source.note.removeprefix("frames passed over: ").split(", ")) == [
        "1 AppleDouble", "1 hidden", "1 links to nothing", "1 of a format that is not read",
        "3 no plain files",
    ]  # fmt: skip


def test_a_pipe_that_takes_a_files_place_holds_nobody_up(tmp_path):
    path = put(tmp_path, "car/1.png")
    source = folder(tmp_path, rescan_s=3600)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SensorError, match="no plain file"):
        source.read(1)


def test_class_folders_in_other_case_and_deeper_are_found(tmp_path):
    put(tmp_path, "train/Car/sub/1.PNG")
    put(tmp_path, "train/TRUCK/2.Jpeg", made.noise(kind="JPEG"))
    put(tmp_path, "truck/3.bmp", made.saved(Image.new("RGB", (20, 20)), "BMP"))
    put(tmp_path, "truck/4.webp", made.noise(kind="WEBP"))
    source = folder(tmp_path)
    assert source.num_frames == 4
    assert sorted(source.read(4).labels) == [0, 1, 1, 1]
    assert source.note == ""


def test_classes_that_differ_in_case_alone_keep_their_own_folders(tmp_path):
    put(tmp_path, "A/1.png")
    put(tmp_path, "a/1.png", GOOD["blue"])
    source = Config(root=tmp_path, size=16).build(("a", "A"))
    frames = source.read(2)
    np.testing.assert_array_equal(frames.images[:, 0, 0, 0] > 128, frames.labels == 1)


def test_folders_without_a_class_are_named_with_what_was_meant(tmp_path):
    put(tmp_path, "car/1.png")
    put(tmp_path, "trucks/1.png")
    put(tmp_path, "cat/1.png")
    put(tmp_path, "stray.png")
    note = folder(tmp_path).note
    assert note.startswith("frames passed over: 3 in no folder of a class (in ")
    for said in ("trucks (truck?)", "cat (car?)", "; classes are car, truck)"):
        assert said in note


def test_files_come_and_go_while_it_runs(tmp_path):
    """A ring buffer: the old ones are deleted, between reads and within one, and new ones are found."""
    old = [put(tmp_path, f"car/{number}.png") for number in range(5)]
    source = folder(tmp_path)
    assert reds(source.read(5)) == 5
    for path in old[:4]:
        path.unlink()
    for number in range(4):
        put(tmp_path, f"truck/{number}.png", GOOD["blue"])
    assert reds(source.read(5)) == 1
    assert source.note == ""


def test_files_that_are_gone_before_the_next_look_are_no_error(tmp_path):
    paths = [put(tmp_path, f"car/{number}.png") for number in range(5)]
    source = folder(tmp_path, rescan_s=3600)
    for path in paths[:4]:
        path.unlink()
    assert reds(source.read(9)) == 9
    paths[4].unlink()
    put(tmp_path, "truck/9.png", GOOD["blue"])
    assert reds(source.read(9)) == 0
    assert source.note == ""


def test_names_in_any_encoding(tmp_path):
    put(tmp_path, "car/1.png")
    for name in (b"K\xf6ln.png", "\u65e5\u672c.png".encode(), b"a\nb.png"):
        (tmp_path / "car" / os.fsdecode(name)).write_bytes(GOOD["red"])
    (tmp_path / "car" / os.fsdecode(b"bad\xff.png")).write_bytes(b"no")
    source = folder(tmp_path)
    assert len(source.read(20).images) == 20
    assert r"car/bad\udcff.png" in source.note
    source.note.encode()


@pytest.mark.parametrize(("second", "told"), [(-86_400, 0.0), (2**45, MAX_SECOND), (1.7e9, 1.7e9)])
def test_dates_are_such_as_an_update_can_name(tmp_path, monkeypatch, second, told):
    """The disk may not know such a date; what `os.stat` says is what counts."""
    path = put(tmp_path, "car/1.png")
    real = os.stat

    def stat(target, **options):
        about = list(real(target, **options))
        about[8] = second
        return os.stat_result(about) if target == os.fsencode(path) else real(target, **options)

    source = folder(tmp_path)
    monkeypatch.setattr(os, "stat", stat)
    frames = source.read(2)
    assert (frames.captured_from, frames.captured_to) == (told, told)


def test_a_large_folder_is_small_in_memory():
    """100,000 names of 14 bytes: 14 of name, 8 of end, 4 of folder, 4 of label each."""
    found = Catalogue()
    found.add(b"/f/car", (b"%010d.jpg" % n for n in range(100_000)), 0)
    assert found[77_777] == (b"/f/car/0000077777.jpg", 0)
    size = len(found.names) + sum(
        len(a) * a.itemsize for a in (found.ends, found.places, found.labels)
    )
    assert size == 100_000 * 30


def test_a_scan_of_an_unchanged_folder_is_the_same(tmp_path):
    for number in range(20):
        put(tmp_path, f"car/{number % 3}/{number}.png")
    assert scan(tmp_path, CLASSES).lists_as(scan(tmp_path, CLASSES))
    put(tmp_path, "car/1/new.png")
    first = scan(tmp_path, CLASSES)
    (tmp_path / "car/1/new.png").rename(tmp_path / "car/1/old.png")
    assert not first.lists_as(scan(tmp_path, CLASSES))


def test_pictures_are_read_as_the_endpoint_reads_them(tmp_path):
    put(tmp_path, "car/1.jpg", made.saved(made.quarters(), "JPEG", exif=made.exif(3), quality=95))
    seen = folder(tmp_path).read(1).images[0]
    assert np.abs(seen[0, 0].astype(int) - made.COLOURS["grey"]).max() < 9


def test_weather_says_what_its_source_passed_over(tmp_path):
    put(tmp_path, "car/1.png")
    put(tmp_path, "car/.2.png")
    inner = Config(root=tmp_path, size=16)
    assert "1 hidden" in passed_over(Weathered(source=inner, condition="fog").build(CLASSES))


class Odd:
    """A source that somebody wrote in a hurry."""

    def build(self, classes):
        raise RuntimeError("no camera")

    kind_name = "acme.camera"


def test_a_source_that_cannot_be_opened_is_one_error():
    with pytest.raises(SensorError, match=r"acme.camera: RuntimeError: no camera"):
        opened(Odd(), CLASSES, num_read=0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((2, 8, 8), np.uint8), np.zeros(2, int), "expected uint8"),
        (np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, int), "expected uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros(3, int), "expected uint8"),
        (np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, int), "expected uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.array([0, -1]), "expected integers from 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.array([0.0, 1.0]), "expected integers from 0"),
    ],
)
def test_frames_that_training_cannot_take_are_refused(images, labels, says):
    with pytest.raises(SensorError, match=says):
        checked(Frames(images, labels, 0.0, 1.0))


def test_a_camera_without_a_clock_says_what_it_likes():
    images, labels = np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, int)
    for oldest, newest, told in (
        (float("nan"), 5.0, (0.0, 5.0)),
        (-7.0, float("inf"), (0.0, 0.0)),
        (9.0, 5.0, (9.0, 9.0)),
        (1e30, 1e30, (MAX_SECOND, MAX_SECOND)),
    ):
        frames = checked(Frames(images, labels, oldest, newest))
        assert (frames.captured_from, frames.captured_to) == told
