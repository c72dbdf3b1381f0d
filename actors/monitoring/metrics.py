"""Prometheus metrics of one process of the server. Knows neither Ray nor HTTP.

Counters follow the event log, so each occurrence is reported once. Gauges (a version, a queue's length) are
read when somebody asks.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric

STALENESS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 50)
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
JUDGED = ("accepted", "duplicate", "refused")


class Metrics:
    """The metrics of one process; pass `heard` to an EventLog as its watch."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.events = self.counter("fleetfl_events", "Events written, by name.", "event")
        self.updates = self.counter(
            "fleetfl_updates", "Updates that were judged.", "verdict", "reason"
        )
        self.update_bytes = self.counter(
            "fleetfl_update_bytes", "Bytes of the frames of judged updates."
        )

    # These metrics exist from their first use on: not every process needs them.

    @functools.cached_property
    def staleness(self) -> Histogram:
        about = "Versions between an accepted update's base and its use."
        return self.histogram("fleetfl_update_staleness_versions", about, STALENESS)

    @functools.cached_property
    def clipped(self) -> Counter:
        return self.counter(
            "fleetfl_clipped_updates", "Accepted updates that were longer than their bound."
        )

    @functools.cached_property
    def kept(self) -> Counter:
        return self.counter(
            "fleetfl_kept_updates", "Updates appended to the journal, repeats included."
        )

    @functools.cached_property
    def commits(self) -> Histogram:
        about = "Seconds for one commit of the journal, of one or many updates."
        return self.histogram("fleetfl_journal_commit_seconds", about)

    def heard(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count an event that was written."""
        self.events.labels(event).inc()
        if event in JUDGED:
            self.updates.labels(event, fields.get("reason", "")).inc()
            self.update_bytes.inc(fields["bytes"])
        if event == "accepted":
            self.staleness.observe(fields["staleness"])
            if "clipped_to" in fields:
                self.clipped.inc()

    def committed(self, updates: int, seconds: float) -> None:
        """Count a commit of the journal."""
        self.commits.observe(seconds)
        self.kept.inc(updates)

    def counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def histogram(self, name: str, about: str, buckets: Iterable[float] = SECONDS) -> Histogram:
        return Histogram(name, about, buckets=tuple(buckets), registry=self.registry)

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Add a gauge; `value` is called at each collection."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def collected(self) -> list[Metric]:
        """The metrics with their present values; they may be sent to another process."""
        return list(self.registry.collect())


def merged(parts: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """The metrics of all parts, one family for each name, each sample labelled with its part."""
    families: dict[str, Metric] = {}
    for part, metrics in parts.items():
        for metric in metrics:
            family = families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                # A counter's creation time is that of its process, which is a metric already.
                if not sample.name.endswith("_created"):
                    labels = {**sample.labels, "part": part}
                    family.samples.append(sample._replace(labels=labels))
    return list(families.values())
