"""Payloads for tests: only what a test cares about has to be said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.events.v3 import (
    CandleClosedPayload,
    ExecutionRequestPayload,
    PositionOpenedPayload,
    RiskAlertPayload,
    SignalGeneratedPayload,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def candle(symbol: str = "BTCUSDT", number: int = 0) -> CandleClosedPayload:
    """Return the one-minute candle ``number`` minutes after the start; the number is also in ``close``."""
    opened = START + timedelta(minutes=number)
    price = 100.0 + number
    return CandleClosedPayload(
        symbol=symbol,
        timeframe="1m",
        open_time=opened,
        close_time=opened + timedelta(minutes=1),
        open=price,
        high=price,
        low=price,
        close=price,
        volume=1.0,
        source="test",
    )


def signal(symbol: str = "BTCUSDT", *, expires_at: datetime | None = None) -> SignalGeneratedPayload:
    """Return a BUY signal."""
    return SignalGeneratedPayload(
        symbol=symbol, action="BUY", confidence=0.7, model_source="test", score=0.7, expires_at=expires_at
    )


def execution_request(symbol: str = "BTCUSDT") -> ExecutionRequestPayload:
    """Return a request to buy for 100 USDT."""
    return ExecutionRequestPayload(
        symbol=symbol, side="BUY", position_size_usd=100.0, leverage=1.0, signal_confidence=0.7, signal_source="test"
    )


def position_opened(symbol: str = "BTCUSDT") -> PositionOpenedPayload:
    """Return a long position of 100 USDT."""
    return PositionOpenedPayload(
        symbol=symbol,
        entry_price=100.0,
        size_usd=100.0,
        leverage=1.0,
        is_long=True,
        position_id=f"position-{symbol}",
        entry_timestamp=START,
    )


def risk_alert(message: str = "test") -> RiskAlertPayload:
    """Return an account-wide alert, which has no ordering key."""
    return RiskAlertPayload(severity="LOW", alert_type="TRADE_BLOCKED", message=message)
