"""The figures have the names and labels of the specification, and two processes in one do not mix."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shared.clock import ManualClock, SystemClock
from shared.telemetry.families import CounterFamily, Figure, HistogramFamily
from shared.telemetry.logs import _LineRenderer
from shared.telemetry.masking import Masker
from shared.telemetry.metrics import Metrics

SERVICE = {"service": "ai-service"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("ai-service", ManualClock(datetime(2025, 12, 2, tzinfo=UTC)))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one scraped sample."""
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == {**SERVICE, **labels}:
                return float(sample.value)
    return None


def test_the_series_of_the_specification() -> None:
    clock = ManualClock(datetime(2025, 12, 2, tzinfo=UTC))
    metrics = Metrics("ai-service", clock)
    clock.advance(3600.5)
    metrics.event_published("signal.generated")
    metrics.event_consumed("candle.closed", "ack", 0.002)
    metrics.event_consumed("candle.closed", "expired")
    metrics.rpc_called("exec-risk-service", "SUCCESS", 0.01, command="get_positions")
    metrics.rpc_served("get_signal", "ERROR")
    metrics.predicted("ensemble")
    metrics.order_sent("MARKET", "ACCEPTED")
    lines = metrics.render()[0].decode().splitlines()
    for expected in (
        'service_uptime_seconds{service="ai-service"} 3600.5',
        'events_published_total{event_type="signal.generated",service="ai-service"} 1.0',
        'events_consumed_total{event_type="candle.closed",outcome="ack",service="ai-service"} 1.0',
        'events_consumed_total{event_type="candle.closed",outcome="expired",service="ai-service"} 1.0',
        'event_handler_seconds_count{event_type="candle.closed",service="ai-service"} 1.0',
        'rpc_calls_total{command="get_positions",service="ai-service",status="success",target="exec-risk-service"} 1.0',
        'rpc_requests_served_total{command="get_signal",service="ai-service",status="error"} 1.0',
        'predictions_total{model="ensemble",service="ai-service"} 1.0',
        'orders_total{order_type="MARKET",outcome="accepted",service="ai-service"} 1.0',
    ):
        assert expected in lines


def test_each_process_has_a_registry_of_its_own() -> None:
    clock = ManualClock(datetime(2025, 12, 2, tzinfo=UTC))
    one, other = Metrics("ai-service", clock), Metrics("exec-risk-service", clock)
    one.predicted("ensemble")
    assert value(one, "predictions_total", model="ensemble") == 1
    assert b"predictions_total{" not in other.render()[0]


def test_the_bus(metrics: Metrics) -> None:
    metrics.event_without_trace("candle.closed")
    metrics.event_consumed("signal.generated", "dead_letter", 0.2)
    metrics.event_consumed("signal.generated", "retry", 0.2)
    metrics.events_published_again(3)
    metrics.events_missing(4)
    metrics.stream_length("quantum:stream:signal.generated", 12)
    metrics.stream_length("quantum:stream:signal.generated", 9)
    metrics.watch_consumer(lag_seconds=lambda: 1.5, pending_events=lambda: 7)

    assert value(metrics, "events_without_trace_total", event_type="candle.closed") == 1
    assert value(metrics, "dead_letters_total", event_type="signal.generated") == 1
    assert value(metrics, "event_handler_seconds_sum", event_type="signal.generated") == pytest.approx(0.4)
    assert value(metrics, "events_published_again_total") == 3
    assert value(metrics, "events_missing_total") == 4
    assert value(metrics, "stream_length", stream="quantum:stream:signal.generated") == 9
    assert value(metrics, "consumer_lag_seconds") == 1.5
    assert value(metrics, "consumer_pending_events") == 7


def test_redis(metrics: Metrics) -> None:
    metrics.redis_answered(0.0012)
    metrics.redis_reconnected()

    assert value(metrics, "redis_reconnects_total") == 1
    assert value(metrics, "redis_latency_seconds_bucket", le="0.001") == 0
    assert value(metrics, "redis_latency_seconds_bucket", le="0.0025") == 1


def test_a_component_adds_figures_of_its_own_under_names_that_are_free(metrics: Metrics) -> None:
    metrics.counter("desks_total", "Desks.", "size").add("small", amount=2)
    metrics.gauge("desk_height", "Height.").set(value=0.75)
    metrics.histogram("desk_seconds", "Time.").observe(seconds=0.1)

    assert value(metrics, "desks_total", size="small") == 2
    assert value(metrics, "desk_height") == 0.75
    assert value(metrics, "desk_seconds_count") == 1
    for declare in (metrics.counter, metrics.gauge, metrics.histogram):
        with pytest.raises(ValueError, match="Duplicated"):
            declare("desks_total", "Other desks.")


def test_rpc_tells_times_by_command(metrics: Metrics) -> None:
    metrics.rpc_called("exec-risk-service", "TIMEOUT", 2.0, command="get_positions")
    metrics.rpc_served("get_signal", "SUCCESS", 0.03)

    assert value(metrics, "rpc_call_seconds_sum", target="exec-risk-service", command="get_positions") == 2.0
    assert value(metrics, "rpc_serve_seconds_sum", command="get_signal") == 0.03


def test_the_policy(metrics: Metrics) -> None:
    metrics.policy_read("cache")
    metrics.policy_read("cache")
    metrics.policy_read("redis", 0.001)
    metrics.policy_written("conflict", 0.004)
    metrics.policy_mode("NORMAL")
    metrics.policy_mode("DEFENSIVE")

    assert value(metrics, "policy_reads_total", source="cache") == 2
    assert value(metrics, "policy_read_seconds_count", source="redis") == 1
    assert value(metrics, "policy_read_seconds_count", source="cache") is None
    assert value(metrics, "policy_write_seconds_sum", outcome="conflict") == 0.004
    assert value(metrics, "policy_mode", mode="NORMAL") == 0
    assert value(metrics, "policy_mode", mode="DEFENSIVE") == 1


def test_the_exchange_and_its_candles(metrics: Metrics) -> None:
    metrics.exchange_answered("POST /fapi/v1/order", 0.08)
    metrics.candle_refused()
    metrics.candle_repaired()
    metrics.candles_missing(3)

    assert value(metrics, "exchange_latency_seconds_count", endpoint="POST /fapi/v1/order") == 1
    assert value(metrics, "candles_refused_total") == 1
    assert value(metrics, "candles_repaired_total") == 1
    assert value(metrics, "candles_missing_total") == 3


def test_log_lines_are_counted_by_level(metrics: Metrics) -> None:
    before = [value(metrics, "log_lines_total", level=level) or 0 for level in ("warning", "debug")]
    stream = io.BytesIO()
    logger = structlog.wrap_logger(
        structlog.BytesLogger(stream),
        processors=[_LineRenderer("desk", Masker(), SystemClock())],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    logger.warning("one")
    logger.warning("two")
    logger.debug("not written")

    after = [value(metrics, "log_lines_total", level=level) or 0 for level in ("warning", "debug")]
    assert after == [before[0] + 2, before[1]]
    assert stream.getvalue().count(b"\n") == 2


def test_a_part_that_cannot_tell_its_figure_does_not_silence_the_others(metrics: Metrics) -> None:
    metrics.watch_consumer(lag_seconds=lambda: 1 / 0, pending_events=lambda: 7)

    assert value(metrics, "consumer_lag_seconds") is None
    assert value(metrics, "consumer_pending_events") == 7


def test_every_figure_is_scraped_from_the_start_and_says_what_it_means(metrics: Metrics) -> None:
    families = {family.name: family for family in text_string_to_metric_families(metrics.render()[0].decode())}
    for figure in metrics.figures:
        family = families[figure.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (figure.kind, figure.meaning)
        assert figure.labels[0] == "service"
    assert len({figure.name for figure in metrics.figures}) == len(metrics.figures)


def test_the_exposition_is_what_the_library_itself_would_write() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    seconds = (0.0001, 0.1, 0.10001, 7.0, 100.0)
    bounds = (0.0001, 0.1, 5.0)
    their_time = Histogram("t_seconds", "Time.", ["service", "what"], registry=theirs, buckets=bounds)
    their_count = Counter("c_total", "Count.", ["service", "what"], registry=theirs)
    our_time = HistogramFamily(Figure("histogram", "t_seconds", "Time.", ("service", "what")), "s", bounds)
    our_count = CounterFamily(Figure("counter", "c_total", "Count.", ("service", "what")), "s")
    ours.register(our_time)
    ours.register(our_count)
    for one in seconds:
        their_time.labels("s", "x").observe(one)
        our_time.observe("x", seconds=one)
        their_count.labels("s", "y").inc(2)
        our_count.add("y", amount=2)

    def lines(registry: CollectorRegistry) -> list[str]:
        return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]

    assert lines(ours) == lines(theirs)
