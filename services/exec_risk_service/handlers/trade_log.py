"""Logs what a stored step did: each order, fill, position and alert once, under the trace it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.step import Step
from shared.events.v3 import (
    EmergencyStopPayload,
    ExecutionResultPayload,
    OrderUpdatedPayload,
    PositionClosedPayload,
    PositionOpenedPayload,
    RiskAlertPayload,
    TradingStateChangedPayload,
)
from shared.telemetry.trace import TraceContext, use_trace
from shared.telemetry.trading_log import trading_log
from shared.trading.orders import OrderStatus

_PROTECTIVE = frozenset({Leg.STOP.value, Leg.TAKE_PROFIT.value})


def tell(step: Step, before: Book) -> None:
    """Log what ``step`` did to the account, which was ``before`` until then."""
    told: dict[str, OrderStatus] = {}
    for fact in step.facts:
        telling = _TELLING.get(fact.event_type)
        if telling is None:
            continue
        if isinstance(fact.payload, OrderUpdatedPayload) and not _is_news(fact.payload, before, told):
            continue
        with use_trace(TraceContext(fact.trace_id, fact.causation_id)):
            telling(fact.payload)


def _is_news(order: OrderUpdatedPayload, before: Book, told: dict[str, OrderStatus]) -> bool:
    """Tell whether an order got another status or a fill: its events also tell of lesser changes."""
    name = order.client_order_id
    known = before.orders.get(name)
    was = told.get(name, known.status if known is not None else None)
    told[name] = order.status
    return order.status is not was or "fill" in order.metadata


def _tell_order(order: OrderUpdatedPayload) -> None:
    leg = str(order.metadata["leg"])
    name, symbol = order.client_order_id, order.symbol
    if "fill" in order.metadata:
        _tell_fill(order, leg)
        return
    match order.status:
        case OrderStatus.SUBMITTED:
            trading_log.order_submitted(
                symbol=symbol,
                side=order.side,
                order_type=order.order_type,
                leg=leg,
                quantity=order.quantity,
                client_order_id=name,
                trigger_price_usd=_trigger_price(order),
                limit_price_usd=None if "price" not in order.metadata else float(order.metadata["price"]),
                strategy=order.metadata.get("strategy"),
                explanation=order.metadata.get("explanation"),
            )
        case OrderStatus.NEW if leg in _PROTECTIVE:
            trading_log.stop_placed(
                symbol=symbol,
                leg=leg,
                side=order.side,
                trigger_price_usd=_trigger_price(order),
                client_order_id=name,
            )
        case OrderStatus.REJECTED:
            trading_log.order_rejected(symbol=symbol, leg=leg, reason=order.reason, client_order_id=name)
        case OrderStatus.UNKNOWN:
            trading_log.order_unknown(symbol=symbol, leg=leg, reason=order.reason, client_order_id=name)
        case OrderStatus.CANCELED | OrderStatus.EXPIRED | OrderStatus.ABSENT:
            trading_log.order_ended(
                symbol=symbol,
                leg=leg,
                status=order.status.value,
                filled_quantity=order.filled_quantity,
                reason=order.reason,
                client_order_id=name,
            )
        case _:
            return  # an intent, or a step on the way to what is told


def _tell_fill(order: OrderUpdatedPayload, leg: str) -> None:
    fill = order.metadata["fill"]
    trading_log.order_filled(
        symbol=order.symbol,
        side=order.side,
        status=order.status.value,
        leg=leg,
        fill_quantity=float(fill["quantity"]),
        fill_price_usd=float(fill["price"]),
        filled_quantity=order.filled_quantity,
        commission_usd=float(fill["commission"]),
        client_order_id=order.client_order_id,
    )


def _trigger_price(order: OrderUpdatedPayload) -> float | None:
    price = order.metadata.get("trigger_price")
    return None if price is None else float(price)


def _tell_result(result: ExecutionResultPayload) -> None:
    if result.internal_order_id is None:  # no order came of the signal
        trading_log.signal_denied(symbol=result.symbol, side=result.side, reason=result.rejection_reason or "")


def _tell_opened(position: PositionOpenedPayload) -> None:
    trading_log.position_opened(
        symbol=position.symbol,
        side="LONG" if position.is_long else "SHORT",
        entry_price_usd=position.entry_price,
        size_usd=position.size_usd,
        leverage=position.leverage,
        stop_loss_price_usd=position.stop_loss_price,
        take_profit_price_usd=position.take_profit_price,
        position_id=position.position_id,
    )


def _tell_closed(position: PositionClosedPayload) -> None:
    trading_log.position_closed(
        symbol=position.symbol,
        side="LONG" if position.is_long else "SHORT",
        entry_price_usd=position.entry_price,
        exit_price_usd=position.exit_price,
        size_usd=position.size_usd,
        pnl_usd=position.pnl_usd,
        pnl_pct=position.pnl_pct,
        duration_seconds=position.duration_seconds,
        exit_reason=position.exit_reason,
        position_id=position.position_id,
    )


def _tell_alert(alert: RiskAlertPayload) -> None:
    trading_log.risk_alert(
        alert_type=alert.alert_type,
        severity=alert.severity,
        message=alert.message,
        symbols=alert.affected_symbols or (),
        action_taken=alert.action_taken,
    )


def _tell_stop(stop: EmergencyStopPayload) -> None:
    trading_log.emergency_stop(
        trigger_reason=stop.trigger_reason,
        close_all_positions=stop.close_all_positions,
        drawdown_pct=stop.drawdown_pct,
    )


def _tell_state(state: TradingStateChangedPayload) -> None:
    trading_log.trading_state_changed(
        previous=state.previous, current=state.current, reason=state.reason, changed_by=state.changed_by
    )


_TELLING: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {
        "order.updated": _tell_order,
        "execution.result": _tell_result,
        "position.opened": _tell_opened,
        "position.closed": _tell_closed,
        "risk.alert": _tell_alert,
        "emergency.stop": _tell_stop,
        "trading_state.changed": _tell_state,
    }
)
