"""From events of the bus to inputs: where the floats of payloads become Decimals."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from services.exec_risk_service.domain.executions import Strategy, Urgency
from services.exec_risk_service.domain.inputs import (
    Action,
    Adjustment,
    Amplification,
    AmplificationRequested,
    CandleClosed,
    Cause,
    ExecutionRequested,
    ExitsAdvised,
    Ordered,
    RebalanceRequested,
    Signal,
    SignalReceived,
    SystemModeChanged,
)
from services.exec_risk_service.domain.protection import ExitAdvice
from services.exec_risk_service.domain.quotes import Quote
from shared.errors import InvalidInputError
from shared.events.envelope import Event, EventMetadata
from shared.events.v3 import (
    CandleClosedPayload,
    ExecutionRequestPayload,
    PortfolioBalancePayload,
    ProfitAmplificationPayload,
    RlDecisionPayload,
    SignalGeneratedPayload,
    SystemModeChangedPayload,
)
from shared.trading.candles import Candle
from shared.trading.money import to_decimal


def signal_received(event: Event[SignalGeneratedPayload], quote: Quote | None = None) -> SignalReceived:
    """Return the input of one ``signal.generated`` that met the book ``quote``.

    Raises:
        InvalidInputError: A number in the signal's metadata is none.
    """
    payload = event.payload
    return SignalReceived(
        cause=_cause(event.metadata),
        signal=Signal(
            symbol=payload.symbol,
            action=Action(payload.action),
            confidence=payload.confidence,
            model=payload.model_source,
            price=_optional(payload.price, "price"),
            size_usd=_optional(payload.suggested_size_usd, "suggested_size_usd"),
            leverage=_optional(payload.suggested_leverage, "suggested_leverage"),
            stop_loss_pct=_optional(payload.metadata.get("stop_loss_pct"), "metadata.stop_loss_pct"),
            take_profit_pct=_optional(payload.metadata.get("take_profit_pct"), "metadata.take_profit_pct"),
            at=_decided_at(event),
        ),
        quote=quote,
    )


def candle_closed(event: Event[CandleClosedPayload]) -> CandleClosed:
    """Return the input of one ``candle.closed``."""
    payload = event.payload
    return CandleClosed(
        cause=_cause(event.metadata),
        candle=Candle(
            symbol=payload.symbol,
            timeframe=payload.timeframe,
            open_time=payload.open_time,
            open=payload.open,
            high=payload.high,
            low=payload.low,
            close=payload.close,
            volume=payload.volume,
        ),
    )


def execution_requested(
    event: Event[ExecutionRequestPayload], at: datetime, quote: Quote | None = None
) -> ExecutionRequested:
    """Return the input of one ``execution.request`` that arrived at market time ``at`` and met the book ``quote``.

    Raises:
        InvalidInputError: A number in the request is none.
    """
    payload = event.payload
    return ExecutionRequested(
        cause=_cause(event.metadata),
        order=Ordered(
            symbol=payload.symbol,
            side=payload.side,
            size_usd=to_decimal(payload.position_size_usd, name="position_size_usd"),
            leverage=to_decimal(payload.leverage, name="leverage"),
            stop_loss_pct=_optional(payload.stop_loss_pct, "stop_loss_pct"),
            take_profit_pct=_optional(payload.take_profit_pct, "take_profit_pct"),
            strategy=Strategy(payload.execution_strategy),
            urgency=Urgency(payload.urgency),
            tolerance_pct=to_decimal(payload.slippage_tolerance_pct, name="slippage_tolerance_pct"),
            confidence=to_decimal(payload.signal_confidence, name="signal_confidence"),
            source=payload.signal_source,
            is_reduce_only=payload.reduce_only,
            expires_at=payload.expires_at,
        ),
        at=at,
        quote=quote,
    )


def exits_advised(event: Event[RlDecisionPayload], at: datetime) -> ExitsAdvised | None:
    """Return the input of one ``rl.decision`` that arrived at market time ``at``; None when it is not about exits.

    Raises:
        InvalidInputError: A number of the decision is none.
    """
    payload = event.payload
    if payload.decision_type != "dynamic_tpsl":
        return None
    return ExitsAdvised(
        cause=_cause(event.metadata),
        symbol=payload.symbol,
        advice=ExitAdvice(
            stop_loss_pct=_optional(payload.stop_loss_pct, "stop_loss_pct"),
            take_profit_pct=_optional(payload.take_profit_pct, "take_profit_pct"),
            is_trailing=payload.trailing_stop_enabled,
        ),
        agent=payload.rl_agent_version,
        decided_at=_decided_at(event),
        at=at,
    )


def amplification_requested(
    event: Event[ProfitAmplificationPayload], at: datetime, quote: Quote | None = None
) -> AmplificationRequested:
    """Return the input of one ``profit.amplification`` that arrived at market time ``at``."""
    payload = event.payload
    return AmplificationRequested(
        cause=_cause(event.metadata),
        symbol=payload.symbol,
        action=Amplification(payload.action),
        factor=to_decimal(payload.amplification_factor, name="amplification_factor"),
        additional_usd=_optional(payload.additional_size_usd, "additional_size_usd"),
        max_total_usd=_optional(payload.max_total_size_usd, "max_total_size_usd"),
        at=at,
        quote=quote,
    )


def rebalance_requested(
    event: Event[PortfolioBalancePayload], at: datetime, quotes: tuple[Quote, ...] = ()
) -> RebalanceRequested:
    """Return the input of one ``portfolio.balance`` that asks for changes; a symbol named twice is changed once."""
    deltas: dict[str, Adjustment] = {}
    for one in event.payload.adjustments:
        delta = to_decimal(one.delta_usd, name="delta_usd")
        known = deltas.get(one.symbol)
        deltas[one.symbol] = Adjustment(one.symbol, delta + (known.delta_usd if known else 0), one.reason)
    return RebalanceRequested(_cause(event.metadata), tuple(deltas.values()), at, quotes)


def system_mode_changed(event: Event[SystemModeChangedPayload]) -> SystemModeChanged:
    """Return the input of one ``system.mode_changed``."""
    payload = event.payload
    return SystemModeChanged(
        cause=_cause(event.metadata),
        mode=payload.new_mode,
        reason=payload.reason,
        changed_by=payload.changed_by,
        allow_new_trades=payload.allow_new_trades,
        allow_position_expansion=payload.allow_position_expansion,
        force_close_positions=payload.force_close_positions,
    )


def _cause(metadata: EventMetadata) -> Cause:
    return Cause(event_id=metadata.event_id, trace_id=metadata.trace_id)


def _optional(value: Any, name: str) -> Decimal | None:
    return None if value is None else to_decimal(value, name=name)


def _decided_at(event: Event[Any]) -> datetime:
    """Return the close of the candle behind the signal; of a signal that does not say it, when it was published."""
    text = event.payload.metadata.get("candle_close_time")
    if text is None:
        return event.metadata.timestamp
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise InvalidInputError(f"metadata.candle_close_time must be an ISO 8601 time, was {text!r}") from None
    if moment.tzinfo is None:
        raise InvalidInputError(f"metadata.candle_close_time must say its time zone, was {text!r}")
    return moment
