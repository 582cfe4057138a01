"""What ``/health`` says, as figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.health.contract import HealthStatus, ServiceHealth

_VALUES: Mapping[HealthStatus, float] = MappingProxyType(
    {HealthStatus.OK: 1.0, HealthStatus.DEGRADED: 0.5, HealthStatus.DOWN: 0.0}
)


class HealthGauges(Collector):
    """Tells the newest report at every scrape.

    ``service_health``, ``dependency_health`` (1 OK, 0.5 DEGRADED, 0 DOWN) and ``dependency_latency_seconds``.
    """

    def __init__(self, report: Callable[[], ServiceHealth]) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        service = GaugeMetricFamily(
            "service_health", "State of the service: 1 OK, 0.5 DEGRADED, 0 DOWN", labels=["service"]
        )
        service.add_metric([report.service], _VALUES[report.status])
        yield service
        health = GaugeMetricFamily(
            "dependency_health", "State of a dependency: 1 OK, 0.5 DEGRADED, 0 DOWN", labels=["service", "dependency"]
        )
        latency = GaugeMetricFamily(
            "dependency_latency_seconds", "Round trip of the last check", labels=["service", "dependency"]
        )
        for name, found in report.dependencies.items():
            health.add_metric([report.service, name], _VALUES[found.status])
            if found.latency_ms is not None:
                latency.add_metric([report.service, name], found.latency_ms / 1000.0)
        yield health
        yield latency
