"""What a process of the server counts and measures, as Prometheus has it. Knows neither Ray nor HTTP.

What happens is told once, to the event log; the counters hear of it there. What *is* (a version, a queue's
length) is read when somebody asks.
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
    """Those of one process; `heard` is an EventLog's watch."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.events = self.counter("fleetfl_events", "What happened, by the event's name.", "event")
        self.updates = self.counter(
            "fleetfl_updates", "Updates that were judged.", "verdict", "reason"
        )
        self.update_bytes = self.counter("fleetfl_update_bytes", "Frames of judged updates.")

    # Those below are there from their first use on: not every process has a use for them.

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
        return self.counter("fleetfl_kept_updates", "Given to the journal, also repeats.")

    @functools.cached_property
    def commits(self) -> Histogram:
        about = "A commit of the journal, of one or of many updates."
        return self.histogram("fleetfl_journal_commit_seconds", about)

    def heard(self, event: str, fields: Mapping[str, Any]) -> None:
        self.events.labels(event).inc()
        if event in JUDGED:
            self.updates.labels(event, fields.get("reason", "")).inc()
            self.update_bytes.inc(fields["bytes"])
        if event == "accepted":
            self.staleness.observe(fields["staleness"])
            if "clipped_to" in fields:
                self.clipped.inc()

    def committed(self, updates: int, seconds: float) -> None:
        """As the journal tells it."""
        self.commits.observe(seconds)
        self.kept.inc(updates)

    def counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def histogram(self, name: str, about: str, buckets: Iterable[float] = SECONDS) -> Histogram:
        return Histogram(name, about, buckets=tuple(buckets), registry=self.registry)

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """`value` is called whenever somebody asks."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def collected(self) -> list[Metric]:
        """All of them as they are now; they may be sent to another process."""
        return list(self.registry.collect())


def merged(parts: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """The metrics of all parts, each sample labelled with its part; one of each name."""
    families: dict[str, Metric] = {}
    for part, metrics in parts.items():
        for metric in metrics:
            family = families.setdefault(
                metric.name, Metric(metric.name, metric.documentation, metric.type)
            )
            for sample in metric.samples:
                # When a counter was made is told by its process, once.
                if not sample.name.endswith("_created"):
                    labels = {**sample.labels, "part": part}
                    family.samples.append(sample._replace(labels=labels))
    return list(families.values())
