"""Arrays from files that anybody may have written: the arrays, or one error that names the file."""

import io
import os
import zipfile

import numpy as np
import pytest

from fleetfl.evaluation.held_out import HeldOutError, read_held_out
from fleetfl.storage.arrays import ArchiveError, array_from, arrays_from
from fleetfl.tasks.classification import Classification
from vehicle_agent.sensors import SensorError
from vehicle_agent.sensors.labelled_npz import Config

pytestmark = pytest.mark.unit

IMAGES, LABELS = np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 1, 0])


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def archive(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", npy(data) if isinstance(data, np.ndarray) else data)
    return path


def claiming(shape, dtype="|u1"):
    """The head of an .npy that says so, and no data."""
    head = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(118) + "\n"
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head.encode()


HOSTILE = {
    "objects": npy(np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "no data": claiming("(3, 8, 8, 3)"),
    "too large": claiming(f"({2**50},)"),
    "negative": claiming("(-1, 8, 8, 3)"),
    "nested": claiming("(" * 90 + ")" * 90),
    "fields": npy(np.zeros(3, [("a", "u1")])),
    "a shape that runs": claiming("__import__('os').getpid()"),
    "text": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays_are_one_error(tmp_path, name):
    path = archive(tmp_path / "x.npz", images=HOSTILE[name], labels=LABELS)
    with pytest.raises(ArchiveError, match=r"x\.npz"):
        arrays_from(path, "images", "labels")
    with pytest.raises(SensorError, match=r"x\.npz"):
        Config(path=path).build(("a", "b"))
    with pytest.raises(HeldOutError, match=r"x\.npz"):
        read_held_out(path, Classification(("a", "b")))
    (tmp_path / "y.npy").write_bytes(HOSTILE[name])
    with pytest.raises(ArchiveError, match=r"y\.npy"):
        array_from(tmp_path / "y.npy")


@pytest.mark.parametrize("cut", [0, 1, 30, 100, -1, -22, -40])
def test_archives_cut_short_are_one_error(tmp_path, cut):
    path = archive(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArchiveError):
        arrays_from(path, "images", "labels")


def test_what_unpacks_to_more_than_the_memory_is_refused_by_what_it_says(tmp_path):
    """The directory's size of the member is edited to 4 GiB - 2; sixteen of them are asked for."""
    path = archive(
        tmp_path / "x.npz", zipfile.ZIP_STORED, **dict.fromkeys("abcdefghijklmnop", IMAGES)
    )
    data = path.read_bytes()
    size = len(npy(IMAGES)).to_bytes(4, "little")
    at = data.index(b"PK\1\2")
    path.write_bytes(data[:at] + data[at:].replace(size, b"\xfe\xff\xff\xff"))
    with pytest.raises(ArchiveError, match=r"x\.npz"):
        arrays_from(path, *"abcdefghijklmnop")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(ArchiveError, match="no plain file"):
        arrays_from(tmp_path / "x.npz", "images")
    with pytest.raises(ArchiveError, match="no plain file"):
        arrays_from(tmp_path, "images")


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (IMAGES, np.array([0, 1, 9]), "labels 0 to 9"),
        (IMAGES, np.array([0, 2**64 - 1, 0], np.uint64), "labels -1"),
        (IMAGES, np.array([0.0, np.nan, 1.0]), "expected integers"),
        (IMAGES, np.array(["a", "b", "c"]), "expected integers"),
        (np.zeros((3, 0, 8, 3), np.uint8), LABELS, "expected uint8"),
        (IMAGES[:0], LABELS[:0], "no frames"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, images, labels, says):
    path = archive(tmp_path / "x.npz", images=images, labels=labels)
    with pytest.raises(SensorError, match=says):
        Config(path=path).build(("a", "b"))


def test_conditions_have_to_be_texts(tmp_path):
    path = archive(tmp_path / "x.npz", images=IMAGES, labels=LABELS, conditions=np.zeros(3))
    with pytest.raises(HeldOutError, match="expected texts"):
        read_held_out(path, Classification(("a", "b")))
