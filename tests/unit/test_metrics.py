"""The figures have the names and labels of the specification, and two processes in one do not mix."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.clock import ManualClock
from shared.telemetry.metrics import Metrics


def rendered(metrics: Metrics) -> list[str]:
    return metrics.render()[0].decode().splitlines()


def test_the_series_of_the_specification() -> None:
    clock = ManualClock(datetime(2025, 12, 2, tzinfo=UTC))
    metrics = Metrics("ai-service", clock)
    clock.advance(3600.5)
    metrics.event_published("signal.generated")
    metrics.event_consumed("candle.closed", "ack", 0.002)
    metrics.event_consumed("candle.closed", "expired")
    metrics.rpc_called("exec-risk-service", "SUCCESS", 0.01)
    metrics.rpc_served("get_signal", "ERROR")
    metrics.predicted("ensemble")
    metrics.order_sent("MARKET", "ACCEPTED")
    lines = rendered(metrics)
    for expected in (
        'service_uptime_seconds{service="ai-service"} 3600.5',
        'events_published_total{event_type="signal.generated",service="ai-service"} 1.0',
        'events_consumed_total{event_type="candle.closed",outcome="ack",service="ai-service"} 1.0',
        'events_consumed_total{event_type="candle.closed",outcome="expired",service="ai-service"} 1.0',
        'event_handler_seconds_count{event_type="candle.closed",service="ai-service"} 1.0',
        'rpc_calls_total{service="ai-service",status="success",target="exec-risk-service"} 1.0',
        'rpc_requests_served_total{command="get_signal",service="ai-service",status="error"} 1.0',
        'predictions_total{model="ensemble",service="ai-service"} 1.0',
        'orders_total{order_type="MARKET",outcome="accepted",service="ai-service"} 1.0',
    ):
        assert expected in lines


def test_each_process_has_a_registry_of_its_own() -> None:
    clock = ManualClock(datetime(2025, 12, 2, tzinfo=UTC))
    one, other = Metrics("ai-service", clock), Metrics("exec-risk-service", clock)
    one.predicted("ensemble")
    assert any(line.startswith("predictions_total{") for line in rendered(one))
    assert not any(line.startswith("predictions_total{") for line in rendered(other))
