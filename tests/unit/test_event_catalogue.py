"""The catalogue: every event, its place in the table, and what its payload lets through."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from shared.errors import DecodeError
from shared.events import v3
from shared.events.envelope import EventPayload
from shared.events.registry import AI, ANALYTICS_OS, ANY, EVENTS, EXEC_RISK, EventKind, TtlClock, spec_for
from shared.events.streams import dead_letter_stream, event_stream, rpc_request_stream, rpc_response_stream
from tests.support.event_samples import SAMPLES

EVENT_TYPES = sorted(EVENTS)

#: event -> (source, ordering key, lifetime in seconds, clock of the lifetime, rank in the buffer)
TABLE: dict[str, tuple[str, str | None, float | None, str | None, int | None]] = {
    "candle.closed": (AI, "symbol", None, None, 3),
    "signal.generated": (AI, "symbol", 300, "MARKET", None),
    "rl.decision": (AI, "symbol", None, None, 3),
    "model.prediction": (AI, "symbol", None, None, 3),
    "universe.opportunity": (AI, None, None, None, 3),
    "execution.request": (ANY, "symbol", 60, "WALL", None),
    "order.updated": (EXEC_RISK, "symbol", None, None, 1),
    "execution.result": (EXEC_RISK, "symbol", None, None, 1),
    "position.opened": (EXEC_RISK, "symbol", None, None, 1),
    "position.updated": (EXEC_RISK, "symbol", None, None, 1),
    "position.closed": (EXEC_RISK, "symbol", None, None, 1),
    "risk.alert": (EXEC_RISK, None, None, None, 1),
    "account.updated": (EXEC_RISK, None, None, None, 1),
    "emergency.stop": (EXEC_RISK, None, None, None, 1),
    "trading_state.changed": (EXEC_RISK, None, None, None, 1),
    "health.status": (ANALYTICS_OS, "service_name", None, None, 2),
    "learning.event": (f"{ANALYTICS_OS} {AI}", "model_id", None, None, 2),
    "system.alert": (ANALYTICS_OS, "component", None, None, 2),
    "service.restart_requested": (ANALYTICS_OS, "service_name", 30, "WALL", None),
    "portfolio.balance": (ANALYTICS_OS, None, 600, "MARKET", None),
    "profit.amplification": (ANALYTICS_OS, "symbol", 60, "WALL", None),
    "policy.updated": (ANY, None, None, None, 2),
    "system.mode_changed": (ANALYTICS_OS, None, None, None, 2),
    "service.heartbeat": (ANY, "service_name", None, None, 4),
    "rpc.request": (ANY, None, None, "WALL", None),
    "rpc.response": (ANY, None, None, "WALL", None),
}


def build(event_type: str, **changes: Any) -> EventPayload:
    return EVENTS[event_type].payload.model_validate({**SAMPLES[event_type], **changes})


def test_the_table_is_that_of_the_design() -> None:
    table = {}
    for event_type, spec in EVENTS.items():
        is_command = spec.kind is EventKind.COMMAND
        table[event_type] = (
            " ".join(spec.source),
            spec.key_field,
            spec.ttl_seconds,
            str(spec.ttl_clock) if is_command else None,
            spec.buffer_priority,
        )

    assert table == TABLE


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_commands_may_be_late_and_are_never_buffered_facts_the_other_way_round(event_type: str) -> None:
    spec = EVENTS[event_type]

    assert (spec.buffer_priority is None) is (spec.kind is EventKind.COMMAND)
    if spec.kind is EventKind.FACT:
        assert spec.ttl_seconds is None
        assert spec.ttl_clock is TtlClock.WALL


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_payload_class_is_named_after_the_event(event_type: str) -> None:
    words = event_type.replace("_", ".").split(".")
    name = "".join(word.capitalize() for word in words) + "Payload"

    assert EVENTS[event_type].payload is getattr(v3, name)
    assert name in v3.__all__


def test_an_event_that_is_not_in_the_catalogue_is_refused_by_name() -> None:
    with pytest.raises(DecodeError, match=r"order\.eaten"):
        spec_for("order.eaten")


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_sample_names_every_field_and_is_let_through(event_type: str) -> None:
    model = EVENTS[event_type].payload

    assert set(SAMPLES[event_type]) == set(model.model_fields) - {"metadata"}
    assert build(event_type).metadata == {}


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_field_says_what_it_means(event_type: str) -> None:
    payload = EVENTS[event_type].payload

    assert payload.__doc__
    assert [name for name, field in payload.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_ordering_key_is_a_field_of_the_payload(event_type: str) -> None:
    spec, payload = EVENTS[event_type], build(event_type)

    expected = None if spec.key_field is None else SAMPLES[event_type][spec.key_field]
    assert spec.ordering_key(payload) == expected


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_payload_cannot_be_changed(event_type: str) -> None:
    payload = build(event_type)

    with pytest.raises(ValidationError, match="frozen"):
        setattr(payload, "metadata", {})  # noqa: B010 - the type checker would not let it pass


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_fields_that_nobody_knows_are_ignored_and_not_passed_on(event_type: str) -> None:
    payload = build(event_type, colour="green")

    assert "colour" not in payload.model_dump()
    assert payload == build(event_type)


NUMBERS = [
    (event_type, field)
    for event_type, sample in SAMPLES.items()
    for field, value in sample.items()
    if isinstance(value, float)
]


@pytest.mark.parametrize(("event_type", "field"), NUMBERS)
def test_no_number_may_be_infinite_or_none_at_all(event_type: str, field: str) -> None:
    for number in (float("nan"), float("inf"), float("-inf"), "NaN", "Infinity"):
        with pytest.raises(ValidationError, match=field):
            build(event_type, **{field: number})


@pytest.mark.parametrize(
    ("event_type", "field", "value"),
    [
        ("rl.decision", "state_features", {"volatility": float("nan")}),
        ("model.prediction", "features", [0.1, float("inf")]),
        ("model.prediction", "prediction", {"p_up": float("nan"), "p_down": 0.4, "expected_return_pct": 0.1}),
        ("universe.opportunity", "criteria_weights", {"volume": float("nan")}),
        ("portfolio.balance", "adjustments", [{"symbol": "BTCUSDT", "delta_usd": float("nan")}]),
        ("rpc.request", "parameters", {"deep": [{"down": (1.0, float("nan"))}]}),
        ("rpc.response", "result", {"x": float("inf")}),
        ("candle.closed", "metadata", {"deep": [{"down": float("nan")}]}),
    ],
)
def test_nor_may_one_that_hides_inside_another_value(event_type: str, field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        build(event_type, **{field: value})


@pytest.mark.parametrize(
    ("event_type", "field", "values"),
    [
        ("signal.generated", "confidence", [-0.01, 1.01]),
        ("signal.generated", "score", [-0.01, 1.01]),
        ("signal.generated", "ensemble_agreement", [1.01]),
        ("signal.generated", "action", ["buy", "CLOSE", None]),
        ("signal.generated", "symbol", ["", "BTC/USDT:USDT", "btcusdt", "BTCUSDT\n"]),
        ("signal.generated", "timeframe", ["0m", "1w", "m", ""]),
        ("signal.generated", "price", [0.0, -1.0]),
        ("signal.generated", "suggested_leverage", [0.9, 126]),
        ("signal.generated", "expires_at", ["2026-01-01T10:00:00", "soon"]),
        ("execution.request", "position_size_usd", [0, -1]),
        ("execution.request", "leverage", [0.99, 125.01]),
        ("execution.request", "execution_strategy", ["ICEBERG"]),
        ("execution.request", "signal_confidence", [1.1]),
        ("execution.request", "stop_loss_pct", [0, -1]),
        ("order.updated", "status", ["LOST", "filled"]),
        ("order.updated", "side", ["LONG"]),
        ("order.updated", "client_order_id", [""]),
        ("position.opened", "size_usd", [0]),
        ("position.closed", "exit_reason", ["BOREDOM"]),
        ("position.closed", "duration_seconds", [-1]),
        ("profit.amplification", "amplification_factor", [0.99, 3.01]),
        ("learning.event", "progress_pct", [-1, 101]),
        ("rpc.request", "timeout_seconds", [0, -1, 86_401]),
        ("portfolio.balance", "position_count", [-1, 1.5]),
    ],
)
def test_values_out_of_bounds_are_refused_by_field(event_type: str, field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValidationError, match=field):
            build(event_type, **{field: value})


def test_times_are_kept_in_utc() -> None:
    payload = v3.UniverseOpportunityPayload(
        ranked_symbols=[], total_scanned=0, timestamp="2026-01-01T12:00:00+02:00", criteria_weights={}
    )

    assert payload.timestamp == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert payload.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        (
            "signal.generated",
            {
                "symbol": "BTCUSDT",
                "action": "BUY",
                "confidence": 0.85,
                "model_source": "ensemble",
                "score": 0.92,
                "ensemble_agreement": 0.75,
                "models_voted": ["xgboost", "lightgbm", "nhits"],
            },
        ),
        (
            "execution.result",
            {
                "symbol": "BTCUSDT",
                "side": "BUY",
                "status": "SUCCESS",
                "filled_size_usd": 1000.0,
                "filled_price": 45000.0,
                "filled_quantity": 0.0222,
                "leverage_applied": 10.0,
                "slippage_pct": 0.12,
                "exchange_order_id": "123456789",
            },
        ),
        (
            "position.closed",
            {
                "symbol": "BTCUSDT",
                "position_id": "pos_123",
                "entry_price": 45000.0,
                "exit_price": 46500.0,
                "size_usd": 1000.0,
                "leverage": 10.0,
                "is_long": True,
                "pnl_usd": 333.33,
                "pnl_pct": 3.33,
                "duration_seconds": 3600,
                "exit_reason": "TAKE_PROFIT",
                "entry_confidence": 0.85,
                "entry_model": "ensemble",
            },
        ),
        (
            "health.status",
            {
                "service_name": "ai-service",
                "status": "DEGRADED",
                "cpu_percent": 75.0,
                "memory_percent": 82.0,
                "modules": {"ensemble_manager": "HEALTHY", "rl_agent": "DEGRADED"},
                "degradation_reason": "High memory usage",
                "recovery_action": "Restart scheduled",
            },
        ),
        (
            "learning.event",
            {
                "event_type": "DRIFT_DETECTED",
                "model_id": "xgboost_v1",
                "model_type": "xgboost",
                "drift_score": 0.18,
                "drift_threshold": 0.15,
            },
        ),
        (
            "portfolio.balance",
            {
                "action": "REBALANCE_REQUIRED",
                "total_exposure_usd": 50000.0,
                "max_allowed_exposure_usd": 100000.0,
                "position_count": 8,
                "max_positions": 10,
                "symbols_to_reduce": ["BTCUSDT"],
                "symbols_to_increase": ["ETHUSDT"],
            },
        ),
        (
            "service.heartbeat",
            {
                "service_name": "ai-service",
                "status": "HEALTHY",
                "uptime_seconds": 12.5,
                "cpu_percent": 3.0,
                "memory_percent": 40.0,
                "memory_used_mb": 512.3,
                "active_tasks": 7,
                "pending_events": 0,
                "processed_events_last_minute": 60,
            },
        ),
        (
            "system.alert",
            {
                "alert_type": "PERFORMANCE_DEGRADED",
                "severity": "CRITICAL",
                "message": "ai-service heartbeat missing",
                "component": "ai-service",
                "recovery_action": "auto_restart",
            },
        ),
    ],
)
def test_what_the_specification_publishes_is_let_through(event_type: str, payload: dict[str, Any]) -> None:
    read = EVENTS[event_type].payload.model_validate(payload).model_dump(mode="json")

    assert {name: read[name] for name in payload} == payload


def test_streams_are_named_after_what_they_carry() -> None:
    assert event_stream("signal.generated") == "quantum:stream:signal.generated"
    assert dead_letter_stream("ai-service") == "quantum:dlq:ai-service"
    assert rpc_request_stream("ai-service") == "quantum:rpc:request:ai-service"
    assert rpc_response_stream("ai-service", "one") == "quantum:rpc:response:ai-service:one"
