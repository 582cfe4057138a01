"""What the events of a whole run say about its speed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infrastructure.bench.whole_run import figures_of
from shared.errors import TransientError

START = datetime(2026, 1, 1, tzinfo=UTC)
KILLED = START + timedelta(seconds=10)


def event(ms: float, event_type: str, trace: str, **payload: Any) -> dict[str, Any]:
    source = "ai-service" if event_type == "candle.closed" else "exec-risk-service"
    moment = START + timedelta(milliseconds=ms)
    return {
        "timestamp": moment.isoformat(),
        "event_type": event_type,
        "trace_id": trace,
        "source": source,
        "payload": payload,
    }


def order(ms: float, trace: str, status: str, leg: str = "entry", **metadata: Any) -> dict[str, Any]:
    told = {"leg": leg, "position_id": f"position of {trace}", **metadata}
    outcome = "UNKNOWN" if status == "INITIALIZED" else "ACCEPTED"
    name = f"{leg} of {trace}"
    return event(
        ms,
        "order.updated",
        trace,
        status=status,
        outcome=outcome,
        client_order_id=name,
        symbol="BTCUSDT",
        metadata=told,
    )


def trade(ms: float, trace: str, wait: float) -> list[dict[str, Any]]:
    return [
        event(ms, "candle.closed", trace),
        order(ms + 1, trace, "INITIALIZED"),
        order(ms + wait, trace, "FILLED", fill={"price": "1"}),
        order(ms + wait + 7, trace, "NEW", leg="stop"),
    ]


def test_waits_are_counted_from_the_candle_and_from_the_fill() -> None:
    events = [*trade(1_000, "a", 10), *trade(2_000, "b", 30), *trade(12_500, "c", 20)]

    figures = figures_of(events[::-1], KILLED)

    assert figures["count"] == 3
    assert figures["candle_to_order_p50_ms"] == pytest.approx(20)
    assert figures["candle_to_order_p99_ms"] == pytest.approx(30)
    assert figures["unprotected_p99_ms"] == pytest.approx(7)
    assert figures["kill_to_trading_s"] == pytest.approx(2.501), "the first word about a candle that closed later"
    assert figures["stages_p50_ms"] == {"order INITIALIZED": pytest.approx(1), "order FILLED": pytest.approx(20)}


def test_an_order_that_the_kill_held_up_says_nothing_about_speed() -> None:
    events = [*trade(1_000, "a", 10), *trade(9_999, "b", 2_000), *trade(12_500, "c", 20)]

    assert figures_of(events, KILLED)["count"] == 2


def test_a_run_without_orders_has_no_figures() -> None:
    with pytest.raises(TransientError, match="0 entries"):
        figures_of([event(1, "candle.closed", "a")], KILLED)
