"""summary.json from events whose sums are known."""

import pytest

from sim.report.measurement import Measurement
from sim.report.summary import incidents, summarize

pytestmark = pytest.mark.unit


def accepted(vehicle, staleness, size):
    fields = {"boot": "b", "sequence": 0, "base": 0, "loss": 1.0, "num_examples": 8}
    return {
        "time": 1.0,
        "event": "accepted",
        "vehicle": vehicle,
        "staleness": staleness,
        "bytes": size,
        **fields,
    }


def online(vehicle, version, down):
    return {
        "event": "online",
        "vehicle": vehicle,
        "boot": "b",
        "version": version,
        "bytes_down": down,
        "note": "",
    }


EVENTS = [
    {"event": "replica_started", "pid": 1, "replicas": 1},
    {"event": "released", "version": 0, "sha256": ""},
    {"event": "announced", "version": 0, "bytes": 100, "snapshot_bytes": 4000},
    {"event": "announced", "version": 1, "bytes": 300, "snapshot_bytes": 4010},
    {"event": "announced", "version": 2, "bytes": 401, "snapshot_bytes": 3990},
    {"event": "vehicle_started", "vehicle": "v0", "condition": "fog", "severity": 0.6, "pid": 1},
    {"event": "vehicle_started", "vehicle": "v1", "condition": "rain", "severity": 0.6, "pid": 2},
    accepted("v0", 0, 10),
    accepted("v1", 3, 20),
    accepted("v1", 0, 30),
    {**accepted("v1", 9, 40), "event": "refused", "reason": "stale", "detail": "9 late"},
    {**accepted("v0", 0, 50), "event": "duplicate"},
    {"event": "released", "version": 1, "sha256": ""},
    {"event": "vehicle_died", "vehicle": "v0", "code": -9, "cause": "SIGKILL"},
    online("v0", -1, 0),
    online("v0", 1, 200),
    online("v1", 3, 250),
    {**online("v1", 6, 300), "note": "hot"},
    {**online("v1", -1, 0), "event": "offline"},
    {"event": "replica_started", "pid": 2, "replicas": 1},
]


@pytest.fixture
def summary():
    return summarize(
        EVENTS,
        start=Measurement(0, 0.4, {"fog": 0.3, "rain": 0.5}),
        end=Measurement(1, 0.6, {"fog": 0.5, "rain": 0.7}),
        centralized_baseline=None,
        num_values=1000,
        num_parameters=50_000,
        latencies_s=[0.001] * 99 + [0.1],
        http_requests=100,
        http_failures=0,
        seed=7,
    )


def test_sums(summary):
    """3 accepted of 1,000 values: 3 * 4,000 bytes as float32, 3 * 200,000 as whole models.
    Up 10 + 20 + 30 + 40 + 50. Down 200 + 300 (the will's zero does not count), where v0 saw one
    version and v1 the four from 3 to 6. Releases of 300 and 401 bytes: 350 each.
    """
    assert (summary["releases"], summary["updates_accepted"], summary["updates_duplicate"]) == (
        1,
        3,
        1,
    )
    assert summary["updates_refused"] == {"stale": 1}
    assert summary["staleness"] == {"mean": 1.0, "max": 3, "histogram": {"0": 2, "3": 1}}
    assert (summary["bytes_up"], summary["bytes_up_float32"]) == (150, 12_000)
    assert summary["bytes_full_model"] == 600_000
    assert (summary["bytes_down"], summary["bytes_down_float32"]) == (500, 20_000)
    assert (summary["bytes_per_release"], summary["bytes_per_snapshot"]) == (350, 4010)
    assert summary["accuracy"]["by_condition"]["fog"] == {"start": 0.3, "end": 0.5}
    assert summary["http_latency_ms"]["p50"] == pytest.approx(1.0)
    assert summary["vehicles"]["v1"] == {
        "condition": "rain",
        "severity": 0.6,
        "accepted": 2,
        "refused": 1,
        "staleness_mean": 1.5,
        "bytes_up": 90,
        "deaths": 0,
    }
    assert summary["versions"]["torch"]


def test_incidents_are_said_in_words(summary):
    assert summary["incidents"] == [
        "update of v1 refused (stale): 9 late",
        "vehicle v0 died (SIGKILL) and was started again",
        "vehicle v1: hot",
        "a Serve replica died and was replaced",
    ]
    assert incidents([]) == []
