"""From our values to the payloads of the events that exec-risk publishes."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.denials import DenialCode
from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.rules import Context
from shared.events.v3 import (
    AccountUpdatedPayload,
    ExecutionResultPayload,
    OrderUpdatedPayload,
    PositionClosedPayload,
    PositionOpenedPayload,
    PositionUpdatedPayload,
)
from shared.trading.orders import OrderStatus, Side
from shared.trading.positions import Fill

_REFUSED = (OrderStatus.REJECTED, OrderStatus.ABSENT)
_OPEN_QUESTION = (OrderStatus.INITIALIZED, OrderStatus.SUBMITTED, OrderStatus.UNKNOWN)


def outcome_of(status: OrderStatus) -> Literal["ACCEPTED", "REJECTED", "UNKNOWN"]:
    """Return what is known of the request; UNKNOWN also before its answer."""
    if status in _REFUSED:
        return "REJECTED"
    return "UNKNOWN" if status in _OPEN_QUESTION else "ACCEPTED"


def order_updated(
    order: Order,
    fill: Fill | None = None,
    execution: Execution | None = None,
) -> OrderUpdatedPayload:
    """Return the state of ``order``; its metadata names the intent and the fill exactly, numbers as text."""
    metadata: dict[str, Any] = {
        "leg": order.leg.value,
        "intent_sequence": order.sequence,
        "cause_event_id": order.cause_event_id,
        "position_id": order.position_id,
    }
    if order.leg is Leg.ENTRY and order.plan is not None and order.plan.sizing:
        metadata["sizing"] = order.plan.sizing
    if order.cancel_requested and not order.is_final:
        metadata["cancel_requested"] = True
    if order.trigger_price is not None:
        metadata["trigger_price"] = str(order.trigger_price)
    if order.price is not None:
        metadata["price"] = str(order.price)
    if order.time_in_force is not None:
        metadata["time_in_force"] = order.time_in_force.value
    if execution is not None:
        metadata |= {"execution_id": execution.execution_id, "strategy": execution.strategy.value}
        if execution.explanation:
            metadata["explanation"] = execution.explanation
    if fill is not None:
        metadata["fill"] = fill_fields(fill)
    return OrderUpdatedPayload(
        symbol=order.symbol,
        client_order_id=order.client_order_id,
        exchange_order_id=order.exchange_order_id or order.algo_id or None,
        side=order.side,
        order_type=order.order_type.value,
        status=order.status,
        quantity=float(order.quantity),
        filled_quantity=float(order.filled_quantity),
        average_price=None if order.average_price is None else float(order.average_price),
        outcome=outcome_of(order.status),
        reason=order.reason or None,
        is_algo=order.order_type.is_algo,
        metadata=metadata,
    )


def stranger_order_updated(fill: Fill, order_type: str) -> OrderUpdatedPayload:
    """Return the trade of an order that is not ours."""
    return OrderUpdatedPayload(
        symbol=fill.symbol,
        client_order_id=fill.client_order_id or "EXTERNAL",
        exchange_order_id=fill.exchange_order_id or None,
        side=fill.side,
        order_type=order_type,
        status=OrderStatus.FILLED,
        quantity=float(fill.quantity),
        filled_quantity=float(fill.quantity),
        average_price=float(fill.price),
        outcome="ACCEPTED",
        is_algo=False,
        metadata={"leg": "external", "fill": fill_fields(fill)},
    )


def fill_fields(fill: Fill) -> dict[str, Any]:
    """Return the trade with its numbers as exact text."""
    return {
        "trade_id": fill.trade_id,
        "price": str(fill.price),
        "quantity": str(fill.quantity),
        "commission": str(fill.commission),
        "realized_pnl": str(fill.realized_pnl),
        "time": fill.time.isoformat(),
    }


def execution_result(order: Order, context: Context, *, reason: str | None = None) -> ExecutionResultPayload:
    """Return how ``order`` ended."""
    average = order.average_price
    return ExecutionResultPayload(
        symbol=order.symbol,
        side=order.side,
        status=_execution_status(order),
        rejection_reason=reason or order.reason or None,
        filled_size_usd=float(order.filled_value),
        filled_price=0.0 if average is None else float(average),
        filled_quantity=float(order.filled_quantity),
        leverage_applied=float(order.leverage) if order.filled_quantity else 0.0,
        slippage_pct=None if average is None else _slippage_pct(order, average),
        execution_time_ms=_execution_time_ms(order, context),
        commission_usd=float(order.commission),
        exchange_order_id=order.exchange_order_id or None,
        internal_order_id=order.client_order_id,
        strategy="MARKET",
        arrival_price=float(order.arrival_price),
        metadata={"leg": order.leg.value, "position_id": order.position_id},
    )


def execution_ended(execution: Execution, last: Order | None, context: Context) -> ExecutionResultPayload:
    """Return how ``execution`` ended; ``last`` is its newest child."""
    average, slippage = execution.average_price, execution.slippage_pct
    elapsed = (context.now - execution.decided_at).total_seconds() * 1000.0
    return ExecutionResultPayload(
        symbol=execution.symbol,
        side=execution.side,
        status=_ended_as(execution, last),
        rejection_reason=execution.reason or None,
        filled_size_usd=float(execution.filled_value),
        filled_price=0.0 if average is None else float(average),
        filled_quantity=float(execution.filled_quantity),
        leverage_applied=float(execution.leverage) if execution.filled_quantity else 0.0,
        slippage_pct=None if slippage is None else float(slippage),
        execution_time_ms=max(0.0, elapsed) if execution.children else None,
        commission_usd=float(execution.commission),
        exchange_order_id=execution.last_exchange_id or None,
        internal_order_id=execution.last_order_id or None,
        strategy=execution.strategy.value,
        arrival_price=float(execution.arrival_price),
        metadata={
            "leg": execution.leg.value,
            "position_id": execution.position_id,
            "execution_id": execution.execution_id,
            "asked_strategy": execution.asked.value,
            "explanation": execution.explanation,
            "target_quantity": str(execution.quantity),
            "children": execution.children,
            "chases": execution.chases,
            "expected_slippage_pct": None if execution.expected_pct is None else float(execution.expected_pct),
        },
    )


def _ended_as(execution: Execution, last: Order | None) -> Literal["SUCCESS", "PARTIAL", "FAILED", "REJECTED"]:
    if execution.remaining == 0:
        return "SUCCESS"
    if execution.filled_quantity > 0:
        return "PARTIAL"
    return "REJECTED" if last is None or last.status is OrderStatus.REJECTED else "FAILED"


def _execution_status(order: Order) -> Literal["SUCCESS", "PARTIAL", "FAILED", "REJECTED"]:
    if order.status is OrderStatus.FILLED:
        return "SUCCESS"
    if order.filled_quantity > 0:
        return "PARTIAL"
    return "REJECTED" if order.status is OrderStatus.REJECTED else "FAILED"


def _slippage_pct(order: Order, average: Decimal) -> float:
    return float((average / order.arrival_price - 1) * 100 * order.side.sign)


def _execution_time_ms(order: Order, context: Context) -> float | None:
    if order.sent_at is None or order.order_type.is_algo:
        return None  # how long a stop rested says nothing about its execution
    return max(0.0, (context.now - order.sent_at).total_seconds() * 1000.0)


def refused_signal(
    symbol: str, side: Side, reason: str, *, arrival_price: Decimal | None, code: DenialCode = DenialCode.SYMBOL_BUSY
) -> ExecutionResultPayload:
    """Return that a signal was not carried out; the metadata names the code of the reason."""
    return ExecutionResultPayload(
        symbol=symbol,
        side=side,
        status="REJECTED",
        rejection_reason=reason,
        filled_size_usd=0.0,
        filled_price=0.0,
        filled_quantity=0.0,
        leverage_applied=0.0,
        arrival_price=float(arrival_price) if arrival_price is not None and arrival_price > 0 else None,
        metadata={"code": code.value},
    )


def position_opened(position: Position, now: datetime) -> PositionOpenedPayload:
    """Return the position at its announcement."""
    return PositionOpenedPayload(
        symbol=position.symbol,
        entry_price=float(position.entry_price),
        size_usd=float(position.opened_value),
        leverage=float(position.leverage),
        is_long=position.is_long,
        stop_loss_price=_number(position.stop_price),
        take_profit_price=_number(position.target_price),
        trailing_stop_active=position.protection.is_trailing,
        position_id=position.position_id,
        entry_confidence=None if position.plan is None else position.plan.confidence,
        entry_model=(position.plan.model or None) if position.plan else None,
        entry_timestamp=position.opened_at,
        metadata={
            "origin": position.origin.value,
            "quantity": str(position.net.quantity),
            "unprotected_seconds": position.cover.seconds(now),
            "stop_basis": position.protection.stop_basis.value,
            "target_basis": position.protection.target_basis.value,
        },
    )


def position_updated(position: Position, mark: Decimal, now: datetime) -> PositionUpdatedPayload:
    """Return an open position at ``mark``."""
    profit = position.net.unrealized_pnl(mark)
    return PositionUpdatedPayload(
        symbol=position.symbol,
        position_id=position.position_id,
        mark_price=float(mark),
        size_usd=float(position.size * mark),
        unrealized_pnl_usd=float(profit),
        unrealized_pnl_pct=float(profit / position.net.cost_usd * 100),
        stop_loss_price=_number(position.stop_price),
        take_profit_price=_number(position.target_price),
        max_profit_pct=float(position.max_profit_pct),
        max_drawdown_pct=float(position.max_drawdown_pct),
        metadata={
            "quantity": str(position.net.quantity),
            "is_protected": position.cover.since is None,
            "unprotected_seconds": position.cover.seconds(now),
            "stop_basis": position.protection.stop_basis.value,
            "target_basis": position.protection.target_basis.value,
            "trailing_stop_active": position.protection.is_trailing,
            **_liquidation(position, mark),
        },
    )


def _liquidation(position: Position, mark: Decimal) -> dict[str, Any]:
    price = position.protection.liquidation_price
    if price is None:
        return {}
    return {"liquidation_price": str(price), "liquidation_distance_pct": float(abs(price / mark - 1) * 100)}


def position_closed(position: Position) -> PositionClosedPayload:
    """Return what became of ``position``; ``pnl_usd`` is after fees and funding."""
    assert position.closed_at is not None
    assert position.closed_by is not None
    return PositionClosedPayload(
        symbol=position.symbol,
        position_id=position.position_id,
        entry_price=float(position.entry_price),
        exit_price=float(position.exit_price),
        size_usd=float(position.opened_value),
        leverage=float(position.leverage),
        is_long=position.is_long,
        pnl_usd=float(position.net_pnl),
        pnl_pct=float(position.net_pnl / position.opened_value * 100),
        duration_seconds=max(0.0, (position.closed_at - position.opened_at).total_seconds()),
        max_drawdown_pct=float(position.max_drawdown_pct),
        max_profit_pct=float(position.max_profit_pct),
        exit_reason=position.closed_by.value,
        entry_confidence=None if position.plan is None else position.plan.confidence,
        entry_model=(position.plan.model or None) if position.plan else None,
        entry_timestamp=position.opened_at,
        exit_timestamp=position.closed_at,
        commission_usd=float(position.commission),
        funding_usd=float(position.funding),
        metadata={"origin": position.origin.value, "realized_pnl": str(position.realized_pnl)},
    )


def account_updated(book: Book) -> AccountUpdatedPayload:
    """Return the account of ``book``, whose wallet must be known."""
    wallet, equity, available = book.cash.wallet, book.equity(), book.available()
    assert wallet is not None
    assert equity is not None
    assert available is not None
    return AccountUpdatedPayload(
        wallet_balance_usd=float(wallet),
        equity_usd=float(equity),
        available_usd=float(available),
        unrealized_pnl_usd=float(book.unrealized_pnl()),
        # Margin bound at entry against equity: the exchange's brackets, which give the exact ratio, stay below it.
        margin_ratio_pct=float(book.margin_used() / equity * 100) if equity > 0 else 100.0,
        peak_equity_usd=float(max(book.cash.day_peak_equity, equity)),
        drawdown_pct=float(book.cash.drawdown(equity) * 100),
        gross_exposure_usd=float(book.gross_exposure()),
        net_exposure_usd=float(book.net_exposure()),
        metadata={"wallet": str(wallet), "expected_wallet": str(book.cash.expected_wallet)},
    )


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
