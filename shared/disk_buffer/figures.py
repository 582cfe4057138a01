"""What the disk buffer tells about itself."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from shared.disk_buffer.changes import Outcome
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class Figures:
    """Metrics, and one line for each priority that had to be dropped instead of one for each entry."""

    def __init__(
        self, service: str, metrics: Metrics | None, *, events: Callable[[], int], size: Callable[[], int]
    ) -> None:
        """Register the metrics, with ``events`` and ``size`` telling the backlog at any time."""
        registry = metrics.registry if metrics else CollectorRegistry()
        gauge = Gauge("disk_buffer_events", "Events in the disk buffer", ["service"], registry=registry)
        gauge.labels(service).set_function(events)
        gauge = Gauge("disk_buffer_bytes", "Size of the events in the disk buffer", ["service"], registry=registry)
        gauge.labels(service).set_function(size)
        flushed = Counter("disk_buffer_flushed_total", "Buffered events published", ["service"], registry=registry)
        self._flushed = flushed.labels(service)
        self._dropped = Counter(
            "disk_buffer_dropped_total", "Buffered events dropped", ["service", "priority"], registry=registry
        )
        self._service = service
        self._dropped_lately: Counts[int] = Counts()

    def count(self, outcome: Outcome) -> None:
        """Take note of what became of a transaction."""
        self._flushed.inc(outcome.settled)
        for priority, count in outcome.dropped.items():
            self._dropped.labels(self._service, str(priority)).inc(count)
            if not self._dropped_lately[priority]:
                log.warning("disk_buffer_drops_entries", priority=priority, count=count, reason="its limit is reached")
        self._dropped_lately += outcome.dropped
        if self._dropped_lately and not outcome.events:
            log.warning("disk_buffer_dropped_entries", by_priority=dict(self._dropped_lately))
            self._dropped_lately.clear()
