"""The figures that ``/metrics`` shows, under the names that the specification gives them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from shared.clock import Clock

#: Upper bounds of the latency histograms, seconds: from the in-process path to a slow exchange.
_LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one process, on a registry of its own that is handed to whoever counts.

    Every series carries the label ``service``; the methods fill it in.

    Attributes:
        registry: Where a component adds figures of its own.
    """

    def __init__(self, service: str, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._service = service
        ProcessCollector(registry=self.registry)
        began = clock.monotonic()
        uptime = Gauge("service_uptime_seconds", "Service uptime in seconds", ["service"], registry=self.registry)
        uptime.labels(service).set_function(lambda: clock.monotonic() - began)
        self._published = self._counter("events_published_total", "Total events published", "event_type")
        self._consumed = self._counter("events_consumed_total", "Events settled, by outcome", "event_type", "outcome")
        self._handler_seconds = self._histogram("event_handler_seconds", "Time to handle one event", "event_type")
        self._rpc_calls = self._counter("rpc_calls_total", "Total RPC calls made", "target", "status")
        self._rpc_call_seconds = self._histogram("rpc_call_seconds", "Time from an RPC call to its answer", "target")
        self._rpc_served = self._counter("rpc_requests_served_total", "RPC requests answered", "command", "status")
        self._predictions = self._counter("predictions_total", "Total predictions made", "model")
        self._orders = self._counter("orders_total", "Orders sent, by how they ended", "order_type", "outcome")

    def event_published(self, event_type: str) -> None:
        """Count one event that reached its stream."""
        self._published.labels(self._service, event_type).inc()

    def event_consumed(self, event_type: str, outcome: str, seconds: float | None = None) -> None:
        """Count one settled delivery.

        Args:
            event_type: Its type.
            outcome: ``ack``, ``retry``, ``dead_letter`` or ``expired``.
            seconds: Time in the handler, when one ran.
        """
        self._consumed.labels(self._service, event_type, outcome).inc()
        if seconds is not None:
            self._handler_seconds.labels(self._service, event_type).observe(seconds)

    def rpc_called(self, target: str, status: str, seconds: float) -> None:
        """Count one call to ``target`` that ended as ``success``, ``error`` or ``timeout`` after ``seconds``."""
        self._rpc_calls.labels(self._service, target, status.lower()).inc()
        self._rpc_call_seconds.labels(self._service, target).observe(seconds)

    def rpc_served(self, command: str, status: str) -> None:
        """Count one request that this process answered."""
        self._rpc_served.labels(self._service, command, status.lower()).inc()

    def predicted(self, model: str) -> None:
        """Count one prediction of ``model``."""
        self._predictions.labels(self._service, model).inc()

    def order_sent(self, order_type: str, outcome: str) -> None:
        """Count one order request that ended as ``accepted``, ``rejected`` or ``unknown``."""
        self._orders.labels(self._service, order_type, outcome.lower()).inc()

    def render(self) -> tuple[bytes, str]:
        """Return the body and the content type of ``/metrics``."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, ["service", *labels], registry=self.registry)

    def _histogram(self, name: str, documentation: str, *labels: str) -> Histogram:
        return Histogram(name, documentation, ["service", *labels], registry=self.registry, buckets=_LATENCY_BUCKETS)
