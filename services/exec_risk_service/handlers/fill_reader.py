"""Trades and payments read from the exchange's lists: what the user stream did not tell."""

from __future__ import annotations

from dataclasses import replace

import structlog

from services.exec_risk_service.domain.inputs import FillsConfirmed
from services.exec_risk_service.domain.reports import FillReport, OrderReport
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import AccountView, OrderGateway, OrderRef, ref_of
from shared.trading.orders import OrderStatus
from shared.trading.positions import Fill

log = structlog.get_logger(__name__)

#: States in which the exchange may know an order by an id that we do not know yet.
_OPEN_QUESTION = (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN)


class FillReader:
    """Completes the ledger's fills and payments; each counts once, however often it is read."""

    def __init__(self, ledger: Ledger, gateway: OrderGateway, view: AccountView) -> None:
        self._ledger = ledger
        self._gateway = gateway
        self._view = view

    async def read_fills(self, symbol: str, *, thoroughly: bool = False) -> bool:
        """Book the trades of ``symbol`` that we do not hold.

        Args:
            symbol: Venue symbol.
            thoroughly: Look again at trades that were read before: the exchange's list may have lagged.

        Returns:
            True when every trade on the list is booked; False when one cannot be assigned to its order yet.
        """
        memory = self._ledger.book.trades.get(symbol)
        if memory is None:
            return await self._begin_after_the_past(symbol)
        start = memory.thorough_cursor if thoroughly else memory.cursor
        fills = await self._view.fills_after(symbol, start)
        for fill in fills:
            if fill.trade_id in self._ledger.book.trades[symbol].recent:
                continue
            owned = await self._with_owner(fill)
            if owned is None:
                log.info("fill_not_assigned_yet", symbol=symbol, trade_id=fill.trade_id)
                return False
            await self._ledger.apply(FillReport(owned))
        if fills:
            await self._ledger.apply(FillsConfirmed(symbol, fills[-1].trade_id))
        return True

    async def read_payments(self) -> None:
        """Book funding and transfers since the newest one that we hold."""
        since = self._ledger.book.cash.paid_until
        if since is None:
            return
        for payment in await self._view.payments_since(since):
            await self._ledger.apply(payment)

    async def recognise(self, report: OrderReport) -> None:
        """Before a report with a foreign id is applied: learn which of our conditional orders it may come from."""
        book = self._ledger.book
        if book.find_order(report.client_order_id, report.exchange_order_id, report.symbol) is not None:
            return
        for order in book.open_orders(report.symbol):
            if order.order_type.is_algo and order.status is not OrderStatus.INITIALIZED:
                found = await self._gateway.find_order(ref_of(order))
                if found is not None:
                    await self._ledger.apply(found)

    async def _begin_after_the_past(self, symbol: str) -> bool:
        """The first look at a symbol: its old trades are not ours, its position is taken over as it is."""
        past = await self._view.fills_after(symbol, None)
        await self._ledger.apply(FillsConfirmed(symbol, max((fill.trade_id for fill in past), default=0)))
        return True

    async def _with_owner(self, fill: Fill) -> Fill | None:
        """Return the trade with the client id of its order; None while that order may still turn out to be ours."""
        if self._ledger.book.find_order("", fill.exchange_order_id, fill.symbol) is not None:
            return fill
        report = await self._gateway.find_order(OrderRef(fill.symbol, exchange_order_id=fill.exchange_order_id))
        if report is not None:
            await self.recognise(report)
            return replace(fill, client_order_id=report.client_order_id)
        in_question = any(o.status in _OPEN_QUESTION for o in self._ledger.book.open_orders(fill.symbol))
        return None if in_question else fill
