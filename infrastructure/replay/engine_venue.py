"""The matching engine as exec-risk's exchange, in the same process: same requests, same answers, no network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from infrastructure.paper_exchange import records
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.payloads import algo_cancel_json, algo_json, income_json, order_json, position_json
from infrastructure.paper_exchange.records import AlgoRequest, OrderRequest, TimeInForce
from services.exec_risk_service.adapters.binance_reports import (
    algo_cancelled,
    algo_report,
    order_report,
    payment,
    reports_of,
    venue_position,
)
from services.exec_risk_service.domain.account_terms import AccountTerms
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.quotes import Level, Quote
from services.exec_risk_service.domain.reports import (
    CashReport,
    OrderReport,
    VenueAccount,
    VenueReport,
)
from services.exec_risk_service.ports import OrderRef
from shared.errors import InvalidInputError, OrderRejectedError, OutcomeUnknownError, TransientError
from shared.trading.candles import Candle
from shared.trading.instruments import Instrument
from shared.trading.positions import Fill

_NOT_FOUND = frozenset({-2011, -2013})
_DUPLICATE_ID = -4116
#: As many levels as the live adapter asks for.
_QUOTE_LEVELS = 50


class EngineVenue:
    """``OrderGateway``, ``AccountView``, ``MarketView``, ``TradingTerms`` and ``CandleHistory`` over one engine.

    Answers and user events take the way over Binance's JSON, so that replay and the live adapter read the same words.
    """

    def __init__(self, engine: MatchingEngine) -> None:
        self._engine = engine

    # -- orders ----------------------------------------------------------------------------------------------------

    async def submit(self, order: Order) -> OrderReport:
        with _ambiguous_as_unknown():
            if order.trigger_price is not None:
                return algo_report(algo_json(self._engine.place_algo(_algo_request(order, order.trigger_price))))
            return order_report(order_json(self._engine.place_order(_order_request(order))))

    async def cancel(self, ref: OrderRef) -> OrderReport:
        with _ambiguous_as_unknown():
            if ref.is_algo:
                gone = algo_cancel_json(self._engine.cancel_algo(client_algo_id=ref.client_order_id))
                return algo_cancelled(gone, ref.symbol, self._engine.now)
            return order_report(order_json(self._engine.cancel_order(ref.symbol, **_order_name(ref))))

    async def set_leverage(self, symbol: str, leverage: int) -> None:
        self._engine.set_leverage(symbol, leverage)

    async def find_order(self, ref: OrderRef) -> OrderReport | None:
        ways: list[Callable[[], OrderReport]] = [
            lambda: order_report(order_json(self._engine.order(ref.symbol, **_order_name(ref))))
        ]
        if ref.client_order_id:
            ways.append(lambda: algo_report(algo_json(self._engine.algo(client_algo_id=ref.client_order_id))))
        for way in reversed(ways) if ref.is_algo else ways:
            try:
                return way()
            except OrderRejectedError as error:
                if error.code not in _NOT_FOUND:
                    raise
        return None

    # -- account ---------------------------------------------------------------------------------------------------

    async def account(self) -> VenueAccount:
        record = self._engine.account()
        held = [
            replace(venue_position(position_json(position)), entry_price=position.entry_price)
            for position in record.positions
            if position.quantity
        ]
        return VenueAccount(record.wallet, tuple(held))

    async def open_orders(self) -> tuple[OrderReport, ...]:
        regular = [order_report(order_json(order)) for order in self._engine.open_orders()]
        return (*regular, *(algo_report(algo_json(algo)) for algo in self._engine.open_algos()))

    async def fills_after(self, symbol: str, trade_id: int | None) -> tuple[Fill, ...]:
        fills = [record.fill for record in self._engine.fills(symbol)]
        return tuple(fill for fill in fills if fill.trade_id > (trade_id or 0))

    async def payments_since(self, moment: datetime) -> tuple[CashReport, ...]:
        rows = [payment(income_json(record)) for record in self._engine.incomes() if record.time >= moment]
        return tuple(row for row in rows if row is not None)

    # -- market ----------------------------------------------------------------------------------------------------

    async def quote(self, symbol: str) -> Quote:
        bids, asks = self._engine.depth(symbol, _QUOTE_LEVELS)
        if not bids or not asks:
            raise InvalidInputError(f"the book of {symbol} is empty on one side")
        return Quote(symbol, _levels(bids), _levels(asks), self._engine.now)

    # -- terms -----------------------------------------------------------------------------------------------------

    async def instruments(self) -> Mapping[str, Instrument]:
        return {symbol: self._engine.contract(symbol).instrument for symbol in self._engine.symbols}

    async def account_terms(self) -> AccountTerms:
        return AccountTerms()

    # -- past candles ------------------------------------------------------------------------------------------------

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> tuple[Candle, ...]:
        try:
            found = self._engine.candles(symbol, timeframe, start, end)
        except OrderRejectedError as error:
            raise TransientError(str(error)) from error
        return tuple(candle for candle in found if candle.close_time <= self._engine.now)

    # -- reports ---------------------------------------------------------------------------------------------------

    def take_reports(self) -> list[VenueReport]:
        """Return what the user stream would have said since the last call, oldest first."""
        return [report for event in self._engine.take_events() for report in reports_of(event)]

    async def deliver(self, on_report: Callable[[VenueReport], Awaitable[None]]) -> int:
        """Hand over reports until there are no more, also those that handling them caused; return their number."""
        count = 0
        while reports := self.take_reports():
            for report in reports:
                await on_report(report)
            count += len(reports)
        return count


@contextmanager
def _ambiguous_as_unknown() -> Iterator[None]:
    """Raise what the live client raises: a duplicate id or an unknown order proves nothing about the order."""
    try:
        yield
    except OrderRejectedError as error:
        if error.code not in (*_NOT_FOUND, _DUPLICATE_ID):
            raise
        raise OutcomeUnknownError(str(error), code=error.code, http_status=error.http_status) from error


def _order_request(order: Order) -> OrderRequest:
    return OrderRequest(
        symbol=order.symbol,
        side=order.side,
        type=order.order_type,
        quantity=order.quantity,
        client_order_id=order.client_order_id,
        reduce_only=order.is_reduce_only,
        price=order.price,
        time_in_force=TimeInForce.GTC if order.time_in_force is None else TimeInForce(order.time_in_force.value),
    )


def _levels(levels: Iterable[records.Level]) -> tuple[Level, ...]:
    return tuple(Level(level.price, level.quantity) for level in levels)


def _algo_request(order: Order, trigger_price: Decimal) -> AlgoRequest:
    return AlgoRequest(
        symbol=order.symbol,
        side=order.side,
        type=order.order_type,
        trigger_price=trigger_price,
        quantity=order.quantity,
        client_algo_id=order.client_order_id,
        reduce_only=True,
    )


def _order_name(ref: OrderRef) -> dict[str, Any]:
    if ref.client_order_id:
        return {"client_order_id": ref.client_order_id}
    return {"order_id": int(ref.exchange_order_id)}
