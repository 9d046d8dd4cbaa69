"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from ...runtime.line.delivery import Delivery
from ...runtime.line.result_log import Entry
from ...runtime.line.station import Station

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SCORES = (*(round(0.05 * k, 2) for k in range(1, 21)), 1.5, 2.0)
_METHODS = {"GET", "HEAD", "POST"}
_DRIFT = ("steady", "changed", "learning")


class Metrics:
    """The counts of one server, in a registry of their own."""

    def __init__(self, queued: Callable[[], int], trouble: Callable[[], str]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter("musc_edge_requests", "Requests answered; 499: the client had gone.",
            ("method", "route", "status"), registry=registry)  # fmt: skip
        self._request_seconds = Histogram("musc_edge_request_seconds", "From a request's head to the answer.",
            ("route",), buckets=_SECONDS, registry=registry)  # fmt: skip
        self._images = Counter("musc_edge_images", "Images by verdict, or why there is none.",
            ("reference", "verdict"), registry=registry)  # fmt: skip
        self._seconds = Histogram("musc_edge_check_seconds", "What checking an image took, without waiting.",
            ("reference",), buckets=_SECONDS, registry=registry)  # fmt: skip
        self._scores = Histogram("musc_edge_raw_score", "Raw scores.",
            ("reference",), buckets=_SCORES, registry=registry)  # fmt: skip
        self._drift = Gauge("musc_edge_drift", "1 for the state of the line: steady, changed or learning.",
            ("reference", "state"), registry=registry)  # fmt: skip
        self._limits = Gauge("musc_edge_reject_above", "Raw score above which an image is rejected.",
            ("reference",), registry=registry)  # fmt: skip
        self._errors = Counter("musc_edge_errors", "Images lost to a backend or a disk that failed.",
            ("kind",), registry=registry)  # fmt: skip
        self._behind = Gauge("musc_edge_delivery_behind", "Results that a receiver has not been told of.",
            ("receiver",), registry=registry)  # fmt: skip
        self._connected = Gauge("musc_edge_delivery_connected", "1 if a receiver can be reached.",
            ("receiver",), registry=registry)  # fmt: skip
        self._skipped = Gauge("musc_edge_delivery_skipped", "Results that a receiver has refused for good.",
            ("receiver",), registry=registry)  # fmt: skip
        Gauge("musc_edge_queue", "Images that wait or are in work.", registry=registry).set_function(queued)
        Gauge("musc_edge_ready", "1 if images can be checked.", registry=registry).set_function(
            lambda: not trouble()
        )

    def add_station(self, station: Station) -> None:
        """Tell a reference's limit, before its first image."""
        limit = station.checker.calibration.reject_above
        if limit is not None:
            self._limits.labels(station.name).set(limit)
        self._seconds.labels(station.name)
        self._scores.labels(station.name)

    def add_delivery(self, delivery: Delivery) -> None:
        """Tell how a delivery stands, whenever it is asked for."""
        name = delivery.status().destination
        self._behind.labels(name).set_function(lambda: delivery.status().behind)
        self._connected.labels(name).set_function(lambda: delivery.status().connected)
        self._skipped.labels(name).set_function(lambda: delivery.status().skipped)

    def answered(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Count a request."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def recorded(self, entry: Entry) -> None:
        """Count an image's result."""
        facts, name = entry.facts, entry.reference
        self._images.labels(name, facts["verdict"] or facts["status"]).inc()
        if facts["raw_score"] is not None:
            self._scores.labels(name).observe(facts["raw_score"])
        if "seconds" in facts:
            self._seconds.labels(name).observe(facts["seconds"])
        if drift := facts.get("drift"):
            for state in _DRIFT:
                self._drift.labels(name, state).set(state == drift["state"])

    def failed(self, error: Exception) -> None:
        """Count an image that the machine could not check or record."""
        self._errors.labels(type(error).__name__).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all of it in the format that ``accept`` asks for, and its type."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind
