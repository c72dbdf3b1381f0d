"""The garbage collector rests during long imports, and only then."""

import gc

import pytest

from fleetfl.models.loading import uncollected

pytestmark = pytest.mark.unit


def test_the_collector_rests_inside_and_works_afterwards():
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_works_after_an_import_that_fails():
    with pytest.raises(ImportError), uncollected():
        raise ImportError("no torch here")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
