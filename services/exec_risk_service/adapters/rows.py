"""Orders, positions and account figures as rows of the journal's tables, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from services.exec_risk_service.domain.account import AccountState
from services.exec_risk_service.domain.book import Mark
from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.kelly import TradeRecord
from services.exec_risk_service.domain.orders import EntryPlan, Leg, Order, Provenance
from services.exec_risk_service.domain.pace import Pace
from services.exec_risk_service.domain.positions import ExitPlan, ExitReason, Origin, Position
from services.exec_risk_service.domain.protection import Protection
from services.exec_risk_service.domain.slippage import SlippageMemory
from services.exec_risk_service.domain.trading_state import TradingStatus
from shared.trading.candles import Candle
from shared.trading.orders import OrderStatus, OrderType, Side, TimeInForce
from shared.trading.positions import NetPosition

Row = Mapping[str, Any]

_PACE = TypeAdapter(Pace)
_RECORD = TypeAdapter(TradeRecord)
_PLAN: TypeAdapter[EntryPlan | None] = TypeAdapter(EntryPlan | None)
_PROTECTION: TypeAdapter[Protection] = TypeAdapter(Protection)
_EXECUTION = TypeAdapter(Execution)
_EXIT: TypeAdapter[ExitPlan | None] = TypeAdapter(ExitPlan | None)
_TRADING: TypeAdapter[TradingStatus] = TypeAdapter(TradingStatus)


def order_row(order: Order) -> dict[str, Any]:
    """Return the columns of ``exec_risk.order_intent`` but for the account."""
    return {
        "client_order_id": order.client_order_id,
        "cause_event_id": order.cause_event_id,
        "leg": order.leg.value,
        "sequence": order.sequence,
        "symbol": order.symbol,
        "side": order.side.value,
        "order_type": order.order_type.value,
        "quantity": order.quantity,
        "trigger_price": order.trigger_price,
        "leverage": order.leverage,
        "arrival_price": order.arrival_price,
        "position_id": order.position_id,
        "trace_id": order.provenance.trace_id,
        "first_event_id": order.provenance.first_event_id,
        "result_trace_id": order.provenance.result_trace_id,
        "result_causation_id": order.provenance.result_causation_id,
        "created_step": order.created_step,
        "created_at": order.created_at,
        "plan": _PLAN.dump_json(order.plan).decode(),
        "price": order.price,
        "time_in_force": None if order.time_in_force is None else order.time_in_force.value,
        "execution_id": order.execution_id,
        "status": order.status.value,
        "reason": order.reason,
        "exchange_order_id": order.exchange_order_id,
        "algo_id": order.algo_id,
        "filled_quantity": order.filled_quantity,
        "filled_value": order.filled_value,
        "commission": order.commission,
        "reported_filled": order.reported_filled,
        "pending_status": None if order.pending_status is None else order.pending_status.value,
        "sent_at": order.sent_at,
        "cancel_requested": order.cancel_requested,
        "settled": order.settled,
    }


def order_of(row: Row) -> Order:
    """Return the order of one row."""
    return Order(
        client_order_id=row["client_order_id"],
        cause_event_id=row["cause_event_id"],
        leg=Leg(row["leg"]),
        sequence=row["sequence"],
        symbol=row["symbol"],
        side=Side(row["side"]),
        order_type=OrderType(row["order_type"]),
        quantity=row["quantity"],
        trigger_price=row["trigger_price"],
        leverage=row["leverage"],
        arrival_price=row["arrival_price"],
        position_id=row["position_id"],
        provenance=Provenance(
            row["trace_id"], row["first_event_id"], row["result_trace_id"], row["result_causation_id"]
        ),
        created_step=row["created_step"],
        created_at=row["created_at"],
        plan=_PLAN.validate_json(row["plan"]),
        price=row["price"],
        time_in_force=None if row["time_in_force"] is None else TimeInForce(row["time_in_force"]),
        execution_id=row["execution_id"],
        status=OrderStatus(row["status"]),
        reason=row["reason"],
        exchange_order_id=row["exchange_order_id"],
        algo_id=row["algo_id"],
        filled_quantity=row["filled_quantity"],
        filled_value=row["filled_value"],
        commission=row["commission"],
        reported_filled=row["reported_filled"],
        pending_status=None if row["pending_status"] is None else OrderStatus(row["pending_status"]),
        sent_at=row["sent_at"],
        cancel_requested=row["cancel_requested"],
        settled=row["settled"],
    )


def execution_row(execution: Execution) -> dict[str, Any]:
    """Return the columns of ``exec_risk.execution`` but for the account: what people search for, and all of it."""
    return {
        "execution_id": execution.execution_id,
        "symbol": execution.symbol,
        "side": execution.side.value,
        "leg": execution.leg.value,
        "strategy": execution.strategy.value,
        "quantity": execution.quantity,
        "filled_quantity": execution.filled_quantity,
        "started_at": execution.started_at,
        "created_step": execution.created_step,
        "done": execution.done,
        "body": _EXECUTION.dump_json(execution).decode(),
    }


def execution_of(body: str) -> Execution:
    """Return the execution of the column ``body``."""
    return _EXECUTION.validate_json(body)


def slippage_row(memory: SlippageMemory) -> dict[str, Any]:
    """Return the columns of ``exec_risk.slippage`` but for the account."""
    return {"symbol": memory.symbol, "total_pct": memory.total_pct, "weight": memory.weight, "at": memory.at}


def slippage_of(row: Row) -> SlippageMemory:
    """Return the memory of one row."""
    return SlippageMemory(row["symbol"], row["total_pct"], row["weight"], row["at"])


def position_row(position: Position) -> dict[str, Any]:
    """Return the columns of ``exec_risk.position`` but for the account."""
    return {
        "position_id": position.position_id,
        "symbol": position.symbol,
        "origin": position.origin.value,
        "trace_id": position.trace_id,
        "cause_event_id": position.cause_event_id,
        "is_long": position.is_long,
        "quantity": position.net.quantity,
        "entry_price": position.net.entry_price,
        "leverage": position.leverage,
        "opened_at": position.opened_at,
        "opening_event_id": position.opening_event_id,
        "opened_event_id": position.opened_event_id,
        "plan": _PLAN.dump_json(position.plan).decode(),
        "opened_quantity": position.opened_quantity,
        "opened_value": position.opened_value,
        "closed_quantity": position.closed_quantity,
        "closed_value": position.closed_value,
        "realized_pnl": position.realized_pnl,
        "commission": position.commission,
        "funding": position.funding,
        "stop_price": position.stop_price,
        "target_price": position.target_price,
        "max_profit_pct": position.max_profit_pct,
        "max_drawdown_pct": position.max_drawdown_pct,
        "exit": _EXIT.dump_json(position.exit).decode(),
        "stops_placed": position.stops_placed,
        "targets_placed": position.targets_placed,
        "exits_placed": position.exits_placed,
        "closed_at": position.closed_at,
        "closed_by": None if position.closed_by is None else position.closed_by.value,
        "protection": _PROTECTION.dump_json(position.protection).decode(),
    }


def position_of(row: Row) -> Position:
    """Return the position of one row."""
    return Position(
        position_id=row["position_id"],
        symbol=row["symbol"],
        origin=Origin(row["origin"]),
        trace_id=row["trace_id"],
        cause_event_id=row["cause_event_id"],
        is_long=row["is_long"],
        net=NetPosition(row["symbol"], row["quantity"], row["entry_price"]),
        leverage=row["leverage"],
        opened_at=row["opened_at"],
        opening_event_id=row["opening_event_id"],
        opened_event_id=row["opened_event_id"],
        plan=_PLAN.validate_json(row["plan"]),
        opened_quantity=row["opened_quantity"],
        opened_value=row["opened_value"],
        closed_quantity=row["closed_quantity"],
        closed_value=row["closed_value"],
        realized_pnl=row["realized_pnl"],
        commission=row["commission"],
        funding=row["funding"],
        stop_price=row["stop_price"],
        target_price=row["target_price"],
        max_profit_pct=row["max_profit_pct"],
        max_drawdown_pct=row["max_drawdown_pct"],
        exit=_EXIT.validate_json(row["exit"]),
        stops_placed=row["stops_placed"],
        targets_placed=row["targets_placed"],
        exits_placed=row["exits_placed"],
        closed_at=row["closed_at"],
        closed_by=None if row["closed_by"] is None else ExitReason(row["closed_by"]),
        protection=_PROTECTION.validate_json(row["protection"]),
    )


def cash_row(cash: AccountState) -> dict[str, Any]:
    """Return the money columns of ``exec_risk.account``."""
    return {
        "wallet": cash.wallet,
        "start_wallet": cash.start_wallet,
        "realized_pnl": cash.realized_pnl,
        "commission": cash.commission,
        "funding": cash.funding,
        "adjustments": cash.adjustments,
        "peak_equity": cash.peak_equity,
        "day": cash.day,
        "day_peak_equity": cash.day_peak_equity,
        "payments": list(cash.payments),
        "paid_until": cash.paid_until,
    }


def cash_of(row: Row) -> AccountState:
    """Return the money of one row."""
    return AccountState(
        wallet=row["wallet"],
        start_wallet=row["start_wallet"],
        realized_pnl=row["realized_pnl"],
        commission=row["commission"],
        funding=row["funding"],
        adjustments=row["adjustments"],
        peak_equity=row["peak_equity"],
        day=row["day"],
        day_peak_equity=row["day_peak_equity"],
        payments=tuple(row["payments"]),
        paid_until=row["paid_until"],
    )


def trading_json(trading: TradingStatus) -> str:
    """Return the trading state as JSON."""
    return _TRADING.dump_json(trading).decode()


def trading_of(text: str | None) -> TradingStatus:
    """Return the trading state of ``trading_json``; of an account that never had one: trading as usual."""
    return TradingStatus() if text is None else _TRADING.validate_json(text)


def marks_json(marks: Mapping[str, Mark]) -> str:
    """Return ``{symbol: [price, market time, wall time]}`` as JSON."""
    return json.dumps(
        {s: [str(mark.price), mark.at.isoformat(), mark.seen_at.isoformat()] for s, mark in marks.items()}
    )


def marks_of(text: str) -> Mapping[str, Mark]:
    """Return the marks of ``marks_json``."""
    return MappingProxyType({symbol: _mark(*written) for symbol, written in json.loads(text).items()})


def candle_row(candle: Candle) -> tuple[Any, ...]:
    """Return the columns of ``exec_risk.candle`` but for the account, in their order."""
    prices = candle.open, candle.high, candle.low, candle.close
    return candle.symbol, candle.open_time, candle.timeframe, *prices, candle.volume


def candle_of(row: Row) -> Candle:
    """Return the candle of one row."""
    return Candle(
        symbol=row["symbol"],
        timeframe=row["timeframe"],
        open_time=row["open_time"],
        open=row["open"],
        high=row["high"],
        low=row["low"],
        close=row["close"],
        volume=row["volume"],
    )


def pace_json(pace: Pace) -> str:
    """Return what the account did lately as JSON."""
    return _PACE.dump_json(replace(pace, closes=dict(pace.closes))).decode()


def pace_of(text: str) -> Pace:
    """Return the pace of ``pace_json``."""
    pace = _PACE.validate_json(text)
    return replace(pace, closes=MappingProxyType(dict(pace.closes)))


def record_json(record: TradeRecord) -> str:
    """Return the results of closed trades as JSON."""
    return _RECORD.dump_json(record).decode()


def record_of(text: str) -> TradeRecord:
    """Return the record of ``record_json``."""
    return _RECORD.validate_json(text)


def _mark(price: str, at: str, seen_at: str | None = None) -> Mark:
    # Rows of earlier versions lack the wall time: such a price is as old as the market time says.
    return Mark(Decimal(price), datetime.fromisoformat(at), datetime.fromisoformat(seen_at or at))
