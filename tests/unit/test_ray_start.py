"""A start of Ray that fails is tried again, and says why."""

import os
from unittest.mock import patch

import pytest
import ray

from actors.config import ServerConfig
from actors.errors import ServerError
from actors.ray_cluster import RAY_TRIES, ray_cluster

pytestmark = pytest.mark.unit


def started(tmp_path, monkeypatch, num_failing, **settings):
    """What is told when so many starts fail, and the options of each."""
    said, starts = [], []

    def init(**options):
        starts.append(options)
        if len(starts) <= num_failing:
            raise RuntimeError(f"start {len(starts)}\ntimed out")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    about = {"fleet": "f", "model": {"classes": ["a", "b"]}, "transport": {"kind": "mqtt"}}
    config = ServerConfig.model_validate({**about, "state": tmp_path, **settings})
    with patch.dict(os.environ):  # Ray's settings go there
        try:
            with ray_cluster(config, tmp_path, said.append):
                pass
        except ServerError as failed:
            said.append(str(failed))
    return said, starts


def test_a_start_that_fails_is_tried_again_and_says_why(tmp_path, monkeypatch):
    said, starts = started(tmp_path, monkeypatch, 2)
    assert len(starts) == 3
    assert [line for line in said if "start 1 timed out" in line]
    assert [line for line in said if "try 3 of 3" in line]


def test_the_last_reason_is_the_servers_error(tmp_path, monkeypatch):
    said, starts = started(tmp_path, monkeypatch, RAY_TRIES)
    assert len(starts) == RAY_TRIES
    assert said[-1] == "Ray did not start, tried 3 times: start 3 timed out"


def test_a_cluster_of_somebody_else_is_asked_once(tmp_path, monkeypatch):
    said, starts = started(tmp_path, monkeypatch, 1, ray={"address": "127.0.0.1:1"})
    assert len(starts) == 1
    assert "start 1 timed out" in said[-1]
