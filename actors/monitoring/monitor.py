"""The monitor serves `/metrics` for Prometheus and `/fleet`, a list of vehicles, over HTTP. Knows no Ray.

It runs in the server's own process and queries the parts at each request, so it answers while they do not.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from actors.errors import ServerError
from actors.monitoring.metrics import merged
from actors.roster import VehicleStatus
from fleetfl.protocol.addresses import authority, family, opener

log = logging.getLogger(__name__)

Parts = Mapping[str, "list[Metric] | None"]
"""Metrics by part of the server; None for a part that did not answer."""


class Monitor:
    """Shows what `parts` and `fleet` return, and probes the endpoint at `url`, if any, as a client would."""

    def __init__(
        self,
        url: str | None,
        parts: Callable[[], Parts],
        fleet: Callable[[], Mapping[str, VehicleStatus]],
    ) -> None:
        self.url, self.parts, self.fleet = url, parts, fleet
        self.births: dict[str, float] = {}
        self.restarts: dict[str, int] = {}
        self.lock = threading.Lock()

    def metrics(self) -> bytes:
        """The page in Prometheus' text format."""
        answers = self.parts()
        with self.lock:
            self._note_restarts(answers)
        own = [
            self._up(answers),
            self._restarted(),
            *self._ready(),
            *vehicle_metrics(self.fleet(), answers),
        ]
        there = {part: metrics for part, metrics in answers.items() if metrics is not None}
        return generate_latest(_Collected([*own, *merged(there)]))

    def vehicles(self) -> bytes:
        """A JSON array of the vehicles' statuses, each with the seconds since the vehicle was last heard."""
        now = time.time()
        shown = []
        for sighting in self.fleet().values():
            about = msgspec.structs.asdict(sighting.status)
            about["key"] = sighting.status.key.hex()
            about["state"] = sighting.state
            about["note"] = "; ".join(filter(None, (sighting.refused, sighting.status.note)))
            heard = sighting.heard_at
            shown.append({**about, "silent_s": None if heard is None else round(now - heard, 1)})
        return json.dumps(sorted(shown, key=lambda each: each["vehicle"])).encode()

    @contextmanager
    def answering(self, host: str, port: int) -> Iterator[None]:
        """Answer HTTP requests in threads inside the context. Raises ServerError if the port is taken."""
        pages = {
            "/metrics": (self.metrics, CONTENT_TYPE_LATEST),
            "/fleet": (self.vehicles, "application/json"),
        }

        class Handler(_Handler):
            """Answers requests for this monitor's pages."""

            def do_GET(self) -> None:
                self.answer(pages)

        class Listener(ThreadingHTTPServer):
            """Listens on an IPv4 or IPv6 address."""

            address_family = family(host)

        try:
            listener = Listener((host, port), Handler)
        except OSError as taken:
            where = f"server.monitor {authority(host, port)}"
            raise ServerError(
                f"{where} cannot be listened on: {taken.strerror or taken}"
            ) from taken
        with listener as server:
            thread = threading.Thread(target=server.serve_forever, name="monitor", daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()

    def _note_restarts(self, answers: Parts) -> None:
        for part, metrics in answers.items():
            born = first(metrics or [], "process_start_time_seconds")
            if born is None or part.startswith("replica"):  # they come in any order
                continue
            # A process is another one if it began at another time; the clock's resolution is 10 ms.
            if abs(self.births.get(part, born) - born) > 0.5:
                self.restarts[part] = self.restarts.get(part, 0) + 1
            self.births[part] = born

    def _up(self, answers: Parts) -> Metric:
        up = GaugeMetricFamily("fleetfl_up", "1 if the part answers.", labels=["part"])
        for part, metrics in answers.items():
            up.add_metric([part], metrics is not None)
        return up

    def _restarted(self) -> Metric:
        about = "Restarts of the part seen by the monitor."
        family = CounterMetricFamily("fleetfl_restarts", about, labels=["part"])
        for part in self.births:
            family.add_metric([part], self.restarts.get(part, 0))
        return family

    def _ready(self) -> Iterator[Metric]:
        if self.url is not None:
            about = "1 if the endpoint is ready, asked over HTTP."
            yield GaugeMetricFamily("fleetfl_endpoint_ready", about, is_ready(self.url))


def is_ready(url: str, timeout_s: float = 2.0) -> bool:
    """Whether the endpoint has a release loaded and follows newer ones."""
    try:
        with opener(url).open(f"{url}/readyz", timeout=timeout_s) as answer:
            return answer.status == 200
    except Exception:  # no answer, or none that is HTTP
        return False


class _Collected:
    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> list[Metric]:
        return self.metrics


def first(metrics: list[Metric], name: str) -> float | None:
    """The value of the first sample of this name."""
    found = (s.value for metric in metrics for s in metric.samples if s.name == name)
    return next(found, None)


def vehicle_metrics(fleet: Mapping[str, VehicleStatus], answers: Parts) -> Iterator[Metric]:
    """Metrics summed over the fleet; `/fleet` has each vehicle, as a series each would be too many."""
    statuses = [sighting.status for sighting in fleet.values()]
    states = GaugeMetricFamily(
        "fleetfl_vehicles", "Vehicles by the state that they last reported.", labels=["state"]
    )
    for state in ("online", "offline", "refused", "unheard"):
        states.add_metric([state], sum(each.state == state for each in fleet.values()))
    yield states
    online = [each.status for each in fleet.values() if each.state == "online"]
    yield GaugeMetricFamily(
        "fleetfl_vehicles_hindered",
        "Online vehicles that report a problem.",
        sum(bool(status.note) for status in online),
    )
    yield GaugeMetricFamily(
        "fleetfl_vehicle_updates_waiting",
        "Updates without a receipt in the outboxes of all vehicles.",
        sum(status.waiting for status in statuses),
    )
    newest = first(answers.get("aggregator") or [], "fleetfl_version")
    lags = [newest - status.version for status in online if status.version >= 0] if newest else []
    yield GaugeMetricFamily(
        "fleetfl_vehicle_lag_versions_max",
        "Versions that the slowest online vehicle is behind the newest one.",
        max(lags, default=0),
    )


class _Handler(BaseHTTPRequestHandler):
    def answer(self, pages: Mapping[str, tuple[Callable[[], bytes], str]]) -> None:
        page = pages.get(self.path.split("?")[0])
        if page is None:
            self.send_error(404, f"expected one of {', '.join(pages)}")
            return
        try:
            content, kind = page[0](), page[1]
        except Exception as failed:  # a part that answers with nonsense
            log.exception("no page for %s", self.path)
            self.send_error(500, f"{type(failed).__name__}")
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: each scrape would be a line."""
