"""Checkpoints: whole or not at all, and the one before when the newest is damaged."""

import numpy as np
import pytest

from fleetfl.storage.checkpoints import CheckpointError, Checkpoints

pytestmark = pytest.mark.unit
STATE = {"a": np.float32([[1, -0.0], [np.nan, 2]]), "b": {"c": b"x", "d": [1, 0.1, "e"]}, "f": None}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "deep")


def test_comes_back_to_the_bit(checkpoints):
    checkpoints.write(7, STATE)
    row, state = checkpoints.newest()
    assert row == 7
    assert state["a"].dtype == np.float32
    assert state["a"].tobytes() == STATE["a"].tobytes()
    assert (state["b"], state["f"]) == (STATE["b"], None)


def test_none_was_ever_written(checkpoints):
    assert checkpoints.newest() is None
    assert checkpoints.safe_row == 0


def test_the_last_two_are_kept_and_rows_that_both_have_are_safe(checkpoints):
    checkpoints.write(0, 0)
    assert checkpoints.safe_row == 0
    for row in (3, 10, 11):
        checkpoints.write(row, row)
    assert [path.name.lstrip("0") for path in sorted(checkpoints.folder.iterdir())] == [
        "10.checkpoint",
        "11.checkpoint",
    ]
    assert checkpoints.safe_row == 10


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "junk"])
def test_a_damaged_one_is_set_aside_loudly_and_the_one_before_is_used(checkpoints, damage, caplog):
    checkpoints.write(3, STATE)
    checkpoints.write(5, STATE)
    path = max(checkpoints.folder.glob("*.checkpoint"))
    whole = path.read_bytes()
    flipped = whole[:90] + bytes([whole[90] ^ 1]) + whole[91:]
    path.write_bytes({"flip": flipped, "cut": whole[:-1], "empty": b"", "junk": b"x" * 99}[damage])
    assert checkpoints.newest()[0] == 3
    assert f"{path.name} of" in caplog.text
    assert "is damaged: set aside" in caplog.text
    assert path.with_suffix(".damaged").exists()
    assert checkpoints.safe_row == 0


def test_only_damaged_ones_are_an_error_and_no_new_beginning(checkpoints):
    checkpoints.write(3, STATE)
    next(checkpoints.folder.glob("*.checkpoint")).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no whole checkpoint, only 0+3\.damaged"):
            checkpoints.newest()


def test_a_half_written_one_is_never_read(checkpoints):
    checkpoints.write(3, STATE)
    (checkpoints.folder / "partial").write_bytes(b"FFC1half")
    assert checkpoints.newest()[0] == 3


def test_what_is_no_plain_value_is_refused(checkpoints):
    with pytest.raises(TypeError, match="a Checkpoints in a checkpoint"):
        checkpoints.write(1, checkpoints)
