"""REST handlers that look back: orders, trades, incomes and forced orders, in Binance's time windows."""

from __future__ import annotations

from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters, Span
from infrastructure.paper_exchange.payloads import Json, algo_json, income_json, order_json, trade_json
from infrastructure.paper_exchange.records import IncomeType
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.retention import INCOMES, LONGEST, WINDOW, is_kept
from infrastructure.paper_exchange.user_events import milliseconds

#: Client ids of the orders that the exchange itself places, by the word of ``autoCloseType``.
_FORCED = {"LIQUIDATION": "autoclose-", "ADL": "adl_autoclose"}


def all_orders(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Orders from ``orderId`` on, or those of a time window of at most 7 days (the last 7 without one)."""
    symbol, now = parameters.text("symbol"), exchange.engine.now
    first, limit = parameters.optional_integer("orderId"), parameters.limit(500, 1000)
    span = _every_time(parameters) if first is not None else parameters.span(now, WINDOW)
    chosen = [
        order
        for order in exchange.engine.orders(symbol)
        if is_kept(order, now)
        and not exchange.hides(order.client_order_id)
        and (order.order_id >= first if first is not None else span.holds(order.created_at))
    ]
    return [
        order_json(order) for order in (chosen[:limit] if span.is_forward or first is not None else chosen[-limit:])
    ]


def _every_time(parameters: Parameters) -> Span:
    return Span(None, None, is_forward=parameters.optional("startTime") is not None)


def all_algos(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Conditional orders from ``algoId`` on, or those of a time window of at most 7 days."""
    symbol, now = parameters.text("symbol"), exchange.engine.now
    first, limit = parameters.optional_integer("algoId"), parameters.limit(500, 1000)
    span = _every_time(parameters) if first is not None else parameters.span(now, WINDOW)
    chosen = [
        algo
        for algo in exchange.engine.algos(symbol)
        if now - algo.created_at <= LONGEST
        and not exchange.hides(algo.client_algo_id)
        and (algo.algo_id >= first if first is not None else span.holds(algo.created_at))
    ]
    return [algo_json(algo) for algo in (chosen[:limit] if span.is_forward or first is not None else chosen[-limit:])]


def user_trades(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Trades from ``fromId`` on, or those of a time window of at most 7 days (the last 7 without one)."""
    order_id, first_id = parameters.optional_integer("orderId"), parameters.optional_integer("fromId")
    names_time = parameters.optional("startTime") is not None or parameters.optional("endTime") is not None
    if first_id is not None and names_time:
        raise refusal(-1128)
    by_id = first_id is not None or order_id is not None
    span = Span(None, None, is_forward=first_id is not None) if by_id else parameters.span(exchange.engine.now, WINDOW)
    chosen = [
        record
        for record in exchange.engine.fills(parameters.text("symbol"))
        if order_id in (None, record.order_id)
        and (first_id is None or record.fill.trade_id >= first_id)
        and span.holds(record.fill.time)
    ]
    limit = parameters.limit(500, 1000)
    return [trade_json(record) for record in (chosen[:limit] if span.is_forward else chosen[-limit:])]


def incomes(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Changes of the wallet: those of the last 7 days, or of a time window within the last 3 months."""
    symbol = parameters.optional("symbol")
    kind = parameters.choice("incomeType", IncomeType, -1130) if parameters.optional("incomeType") else None
    now = exchange.engine.now
    span = parameters.span(now, INCOMES, default=WINDOW)
    chosen = [
        record
        for record in exchange.engine.incomes()
        if symbol in (None, record.symbol)
        and kind in (None, record.type)
        and now - record.time <= INCOMES
        and span.holds(record.time)
    ]
    limit = parameters.limit(100, 1000)
    skipped = (parameters.integer("page", 1) - 1) * limit
    rows = chosen[skipped : skipped + limit] if span.is_forward or skipped else chosen[-limit:]
    return [income_json(record) for record in rows]


def forced_orders(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Liquidations and deleveragings of the account, newest last."""
    symbol = parameters.optional("symbol")
    kind = parameters.optional("autoCloseType")
    if kind is not None and kind not in _FORCED:
        raise refusal(-1130, "autoCloseType")
    prefixes = tuple(_FORCED.values()) if kind is None else (_FORCED[kind],)
    span = parameters.span(exchange.engine.now, WINDOW)
    orders = [
        order
        for order in exchange.engine.force_orders(symbol)
        if order.client_order_id.startswith(prefixes) and span.holds(order.created_at)
    ]
    limit = parameters.limit(50 if symbol else 100, 100)
    return [order_json(order) for order in sorted(orders, key=lambda order: milliseconds(order.created_at))[-limit:]]
