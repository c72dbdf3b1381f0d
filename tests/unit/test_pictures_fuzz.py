"""A sample of what `benchmarks/fuzz_pictures.py` does a million times."""

import asyncio
import warnings

import pytest

from benchmarks.fuzz_pictures import fuzz_pictures, fuzz_requests

pytestmark = pytest.mark.unit


def test_hostile_pictures_are_seen_or_refused():
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's, of odd pictures: outside of tests they stop nothing
        result = fuzz_pictures(3000, seed=1)
    assert [each for each in result["broken"] if " ms" not in each] == []
    ends = {end for each in result["ends"] for end in (each.split(": ")[1],)}
    assert ends == {"picture", "refused"}


def test_hostile_requests_are_answered_without_a_servers_error():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = asyncio.run(fuzz_requests(300, seed=1))
    assert result["broken"] == []
    assert {200, 400, 404, 405, 499} <= set(result["statuses"])
