"""A real scrape of the monitor, read by Prometheus' own parser, and the status made of it."""

import contextlib
import io
import signal
import socket
import subprocess
import sys
import time

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from actors.errors import ServerError
from actors.monitoring.metrics import Metrics
from actors.monitoring.monitor import Monitor
from actors.monitoring.status import StatusError, look, summary, troubles
from actors.monitoring.status_table import rendered
from actors.ports import free_ports
from actors.roster import VehicleDirectory
from fleetfl.events.event_log import EventLog
from fleetfl.protocol.messages import Status

pytestmark = pytest.mark.unit


ENDS = {"accepted": 9, "expired count": 2, "refused stale": 1}


@pytest.fixture
def roster():
    fleet = VehicleDirectory()
    now = time.time()
    fleet.note(Status("v1", "b", "online", 5, 10, 20, 1, "", b""), at=now - 3)
    fleet.note(Status("v2", "b", "online", 2, 10, 20, 4, "no release [yet]", b"", ENDS), at=now)
    fleet.note(Status("v3", "b", "offline", -1, 0, 0, 0, "", b""), at=now, retained=True)
    return fleet


@pytest.fixture
def aggregator(tmp_path):
    metrics = Metrics()
    log = EventLog(tmp_path / "events.jsonl", watch=metrics.heard)
    seen = {"vehicle": "v1", "boot": "b", "sequence": 0, "base": 0, "bytes": 1400}
    for staleness in (0, 0, 3):
        log.write("accepted", **seen, staleness=staleness)
    log.write("refused", **seen, staleness=60, reason="stale", detail="")
    log.write("checkpoint_failed", detail="full")
    metrics.gauge("fleetfl_version", "The newest.", lambda: 7)
    metrics.gauge("fleetfl_buffered_updates", "Since then.", lambda: 3)
    metrics.gauge("fleetfl_buffer_goal_updates", "Wanted.", lambda: 10)
    log.close()
    return metrics


@contextlib.contextmanager
def answering(parts, roster, *, has_endpoint=True):
    """A monitor over HTTP; the endpoint that it asks, if any, does not answer."""
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}" if has_endpoint else None
    monitor = Monitor(endpoint, parts, lambda: roster.sightings)
    port = free_ports(1)[0]
    with monitor.answering("127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


def test_a_scrape_holds_every_part_and_one_family_of_each_name(aggregator, roster):
    gateways = {f"gateway {n}": Metrics() for n in range(2)}
    gateways["gateway 1"].committed(9, 0.0015)

    def parts():
        found = {name: metrics.collected() for name, metrics in gateways.items()}
        return {"aggregator": aggregator.collected(), **found, "evaluator": None}

    with answering(parts, roster) as url:
        now = look(url)
    assert now.by("part", "fleetfl_up") == {
        "aggregator": 1,
        "gateway 0": 1,
        "gateway 1": 1,
        "evaluator": 0,
    }
    assert now.by("verdict", "fleetfl_updates_total") == {"accepted": 3, "refused": 1}
    assert now.by("reason", "fleetfl_updates_total") == {"stale": 1}
    assert now.value("fleetfl_update_bytes_total") == 4 * 1400
    assert now.by("part", "fleetfl_kept_updates_total")["gateway 1"] == 9
    assert now.by("state", "fleetfl_vehicles") == {
        "online": 2,
        "offline": 1,
        "refused": 0,
        "unheard": 0,
    }
    assert now.value("fleetfl_vehicle_lag_versions_max") == 7 - 2
    assert now.value("fleetfl_vehicle_updates_waiting") == 1 + 4
    assert now.value("fleetfl_endpoint_ready") == 0


def test_a_server_without_an_endpoint_does_not_say_that_it_is_not_ready(aggregator, roster):
    parts = {"aggregator": aggregator.collected()}
    with answering(lambda: parts, roster, has_endpoint=False) as url:
        assert summary(look(url))["endpoint"] is None
        Console(quiet=True).print(rendered(summary(look(url))))


def test_the_page_is_what_prometheus_reads(aggregator, roster):
    """Each name is declared once, with its type; histograms have their buckets, sum and count."""
    parts = {"aggregator": aggregator.collected(), "gateway 0": Metrics().collected()}
    monitor = Monitor("http://127.0.0.1:9", lambda: parts, lambda: roster.sightings)
    page = monitor.metrics().decode()
    declared = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared))
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert families["fleetfl_updates"].type == "counter"
    staleness = families["fleetfl_update_staleness_versions"]
    assert staleness.type == "histogram"
    of_aggregator = [s for s in staleness.samples if s.labels["part"] == "aggregator"]
    found = {s.name: s.value for s in of_aggregator if "le" not in s.labels}
    assert found == {
        "fleetfl_update_staleness_versions_count": 3,
        "fleetfl_update_staleness_versions_sum": 3,
    }


def test_a_part_that_is_another_process_is_counted_as_restarted(roster):
    born = iter([100.0, 100.0, 230.0])

    def parts():
        metrics = Metrics()
        metrics.registry = type(metrics.registry)()
        at = next(born)
        metrics.gauge("process_start_time_seconds", "As ProcessCollector.", lambda: at)
        return {"gateway 0": metrics.collected()}

    with answering(parts, roster) as url:
        found = [look(url).value("fleetfl_restarts_total", part="gateway 0") for _ in range(3)]
    assert found == [0, 0, 1]


def test_the_status_says_who_is_away_and_what_hinders(aggregator, roster):
    def parts():
        return {"aggregator": aggregator.collected(), "gateway 0": None, "replica 0": None}

    with answering(parts, roster) as url:
        before, now = look(url), look(url)
    about = summary(now, before)
    assert [(v["vehicle"], v["state"], v["behind"]) for v in about["vehicles"][:2]] == [
        ("v1", "online", 2),
        ("v2", "online", 5),
    ]
    assert about["aggregator"]["refused"] == {"stale": 1}
    assert about["aggregator"]["staleness"] == {"count": 3, "p50": 0, "p99": 3}
    assert about["aggregator"]["updates_per_s"] == 0
    screen = io.StringIO()
    Console(file=screen, width=200).print(rendered(about))
    said = screen.getvalue()
    for words in ("AWAY", "NOT READY", "no release [yet]", "1 checkpoints failed", "stale 1"):
        assert words in said
    assert "3 of 10 updates towards the next" in said
    assert "expired count 2, refused stale 1" in said


def test_what_keeps_a_server_from_its_work_is_a_failure_and_is_named(aggregator, roster):
    gateway = Metrics()
    gateway.gauge("fleetfl_broker_connected", "", lambda: 0)
    gateway.gauge("fleetfl_journal_keeps", "", lambda: 1)
    parts = {"aggregator": aggregator.collected(), "gateway 0": gateway.collected()}
    with answering(lambda: parts, roster, has_endpoint=False) as url:
        assert troubles(summary(look(url))) == ["gateway 0 has no broker"]
        argv = [sys.executable, "-m", "fleetfl", "status", "--url", url, "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: gateway 0 has no broker\n"
    parts = {"aggregator": None, "gateway 0": None}
    with answering(lambda: parts, roster) as url:
        assert troubles(summary(look(url))) == [
            "aggregator does not answer",
            "gateway 0 does not answer",
            "the endpoint is not ready",
        ]


def test_the_status_shows_who_is_refused_and_who_was_never_heard(aggregator, roster):
    roster.refuse("v2", "v2 is revoked: removed was keys/v2.pub")
    roster.refuse("v8", "v8 is not listed")
    fleet = VehicleDirectory(roster.shown(listed=["v9"]))
    with answering(lambda: {"aggregator": aggregator.collected()}, fleet) as url:
        about = summary(look(url))
    states = {v["vehicle"]: v["state"] for v in about["vehicles"]}
    assert (states["v1"], states["v2"]) == ("online", "refused")
    assert (states["v8"], states["v9"]) == ("refused", "unheard")
    screen = io.StringIO()
    Console(file=screen, width=200).print(rendered(about))
    for words in ("REFUSED", "v8 is not listed", "v2 is revoked", "never heard"):
        assert words in screen.getvalue()


def test_a_note_is_read_whole_on_a_narrow_screen(aggregator, roster):
    note = "frames passed over: 10 damaged, the last: truck/broken.jpg"
    roster.note(Status("v1", "b", "online", 5, 10, 20, 1, note, b""), at=time.time())
    with answering(lambda: {"aggregator": aggregator.collected()}, roster) as url:
        about = summary(look(url))
    screen = io.StringIO()
    Console(file=screen, width=80).print(rendered(about))
    assert f"v1 {note}\n" in screen.getvalue()


def test_what_took_longer_than_all_bounds_is_not_said_to_be_infinite(aggregator, roster):
    replica = Metrics()
    replica.histogram("fleetfl_request_seconds", "", [0.001, 1.0]).observe(15.0)
    parts = {"aggregator": aggregator.collected(), "replica 0": replica.collected()}
    with answering(lambda: parts, roster) as url:
        about = summary(look(url))
    screen = io.StringIO()
    Console(file=screen, width=200).print(rendered(about))
    assert "longer than is measured (99 %)" in screen.getvalue()
    assert "inf" not in screen.getvalue()


def test_the_status_shows_who_is_banned(aggregator, roster):
    banned = GaugeMetricFamily("fleetfl_banned_vehicle", "Banned.", labels=["vehicle"])
    banned.add_metric(["v2"], 1)
    banned.add_metric(["gone"], 1)

    def parts():
        return {"aggregator": [*aggregator.collected(), banned]}

    with answering(parts, roster) as url:
        about = summary(look(url))
    assert {v["vehicle"]: v["banned"] for v in about["vehicles"]} == {
        v["vehicle"]: v["vehicle"] == "v2" for v in about["vehicles"]
    }
    screen = io.StringIO()
    Console(file=screen, width=200).print(rendered(about))
    assert "banned: gone, v2" in screen.getvalue()
    assert "BANNED" in screen.getvalue()


def test_the_status_is_watched_until_ctrl_c(aggregator, roster):
    """The two looks that a rate needs, and one more after a pause."""
    num_looks = 0

    def parts():
        nonlocal num_looks
        num_looks += 1
        return {"aggregator": aggregator.collected()}

    with answering(parts, roster) as url:
        argv = [sys.executable, "-m", "fleetfl", "status", "--url", url, "--watch"]
        watching = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while num_looks < 3 and time.monotonic() < end:
            time.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        said, _ = watching.communicate(timeout=30)
    assert num_looks >= 3
    assert "v2" in said
    assert "3 of 10 updates towards the next" in said


def test_a_silent_monitor_is_named():
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StatusError, match=f"no server answers at {url}/metrics"):
        look(url)


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"127.0.0.1:{port} cannot be listened on"),
            Monitor(None, dict, dict).answering("127.0.0.1", port),
        ):
            raise AssertionError("never answers")
