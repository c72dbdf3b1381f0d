"""Who holds what."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from fleetfl.plugins import available
from sim import world
from sim.datasets import Weather
from sim.datasets.drone_world import Config as DroneWorld
from sim.partitions._label_skew import dirichlet_rows, dirichlet_shares, rows_by_shares
from sim.partitions.classes import Config as Classes
from sim.partitions.places import Config as Places
from vehicle_agent.sensors import AnySensor

pytestmark = pytest.mark.unit
LABELS = np.random.default_rng(0).integers(0, 10, 5000)


def test_every_row_goes_to_exactly_one_vehicle():
    parts = dirichlet_rows(LABELS, 12, 0.3, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(5000))
    assert min(map(len, parts)) >= 32


def test_same_seed_same_parts():
    first, again = (dirichlet_rows(LABELS, 8, 0.3, seed=2) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_smaller_alpha_is_more_skewed():
    largest = [dirichlet_shares(200, 10, a, seed=0).max(axis=1).mean() for a in (0.1, 0.3, 3, 100)]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 0.6
    assert largest[-1] < 0.2


def test_too_few_rows_is_an_error():
    with pytest.raises(ValueError, match="100 rows do not give 12 vehicles 32 each"):
        dirichlet_rows(LABELS[:100], 12, 0.3, seed=0)


def test_by_class_each_vehicle_meets_so_many_and_each_class_is_met_as_often() -> None:
    """20 vehicles with 3 of 10 classes each: every class is met by 6."""
    shares = Classes(each=3).shares(20, 10, seed=1)
    assert ((shares > 0).sum(axis=1) == 3).all()
    assert ((shares > 0).sum(axis=0) == 6).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    with pytest.raises(ValueError, match="each 11"):
        Classes(each=11).shares(20, 10, seed=1)


def test_by_place_neighbours_meet_the_same() -> None:
    shares = Places(places=4).shares(8, 10, seed=1)
    assert (shares[::2] == shares[1::2]).all()
    assert len(np.unique(shares, axis=0)) == 4


def test_rows_are_dealt_in_proportion_to_shares() -> None:
    """Of 40 rows of class 0 who has three times the share gets 30, the other 10, and all of class 1."""
    labels = np.array([0] * 40 + [1] * 8)
    first, second = rows_by_shares(labels, np.array([[1.0, 0.0], [1 / 3, 2 / 3]]), seed=0)
    assert (np.bincount(labels[first], minlength=2) == [30, 0]).all()
    assert (np.bincount(labels[second]) == [10, 8]).all()
    assert sorted([*first, *second]) == list(range(48))


def test_rows_for_nobody_are_an_error() -> None:
    with pytest.raises(ValueError, match="each of 2 vehicles"):
        rows_by_shares(np.zeros(5, int), np.array([[1.0, 0.0], [0.0, 1.0]]), seed=0)


@pytest.mark.parametrize("kind", available("sim.partitions"))
def test_every_kind_of_shares_deals_the_drone_world(kind: str, tmp_path: Path) -> None:
    dataset = DroneWorld.model_validate({"partition": {"kind": kind}})
    dataset.check(world.CLASSES)
    tables = dataset.sensors([Weather(condition="fog")] * 6, tmp_path, seed=3)
    for table in tables:
        assert sum(table["shares"]) == pytest.approx(1, abs=1e-4)
        frames = TypeAdapter(AnySensor).validate_python(table).build(world.CLASSES).read(3)
        assert all(table["shares"][label] > 0 for label in frames.labels)
