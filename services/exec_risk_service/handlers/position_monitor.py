"""``candle.closed``, the reports of the exchange, and the questions about positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.from_events import candle_closed, exits_advised
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.reports import (
    CashChanged,
    LeverageChanged,
    OrderInQuestion,
    OrderReport,
    Reconnected,
    VenueReport,
)
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.quote_board import QuoteBoard
from services.exec_risk_service.handlers.reconciler import Reconciler
from shared.clock import Clock
from shared.events.envelope import Event
from shared.rpc.commands import (
    GetPositionsRequest,
    GetPositionsResult,
    GetPositionStatusRequest,
    GetPositionStatusResult,
)
from shared.rpc.commands import Position as PositionAnswer

log = structlog.get_logger(__name__)


class PositionMonitor:
    """Keeps positions current and tells about them."""

    def __init__(
        self,
        ledger: Ledger,
        reconciler: Reconciler,
        quotes: QuoteBoard,
        *,
        market_clock: Clock,
        note_leverage: Callable[[str, int], None],
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            reconciler: Asks the exchange.
            quotes: Books of the symbols.
            market_clock: Market time: age of advice.
            note_leverage: Told which leverage a symbol has, whoever set it.
        """
        self._market_clock = market_clock
        self._note_leverage = note_leverage
        self._ledger = ledger
        self._quotes = quotes
        self._reconciler = reconciler

    async def on_candle(self, event: Event[Any]) -> None:
        """Apply one closed candle: mark price, equity, and what market time decides."""
        self._quotes.expect(event.payload.symbol)  # the signal about this candle follows at once
        await self._ledger.apply(candle_closed(event))

    async def on_report(self, report: VenueReport) -> None:
        """Apply one line of the user stream."""
        match report:
            case Reconnected():
                await self._reconciler.sweep(after_gap=True)
            case CashChanged():
                await self._reconciler.fetch_payments()
            case OrderInQuestion():
                log.warning("condition_refused", symbol=report.symbol, reason=report.reason)
                await self._reconciler.look_up_conditional(report.symbol)
            case LeverageChanged():
                self._note_leverage(report.symbol, report.leverage)
                await self._ledger.apply(report)
            case OrderReport():
                if report.fill is not None:
                    await self._reconciler.recognise(report)
                await self._ledger.apply(report)
            case _:
                await self._ledger.apply(report)

    async def on_rl_decision(self, event: Event[Any]) -> None:
        """Move stop and target as ``dynamic_tpsl`` advises.

        The other kinds explain a signal that carries the same size and strategy itself: exec-risk never waits for them.
        """
        item = exits_advised(event, self._market_clock.now())
        if item is None:
            return
        if item.symbol not in self._ledger.book.positions:
            log.info("advice_without_position", symbol=item.symbol, agent=item.agent)
            return
        await self._ledger.apply(item)

    async def get_position_status(self, request: GetPositionStatusRequest) -> GetPositionStatusResult:
        """Return the position of one symbol."""
        book = self._ledger.book
        position = book.positions.get(request.symbol)
        if position is None:
            return GetPositionStatusResult(status="no_position")
        return GetPositionStatusResult(status="open", position=position_answer(book, position))

    async def get_positions(self, _request: GetPositionsRequest) -> GetPositionsResult:
        """Return all open positions by symbol."""
        book = self._ledger.book
        return GetPositionsResult(
            positions=tuple(position_answer(book, book.positions[symbol]) for symbol in sorted(book.positions))
        )


def position_answer(book: Book, position: Position) -> PositionAnswer:
    """Return ``position`` as the RPC and HTTP interfaces show it."""
    mark = book.mark(position.symbol)
    return PositionAnswer(
        position_id=position.position_id,
        symbol=position.symbol,
        side=position.net.side,
        quantity=float(position.size),
        entry_price=float(position.net.entry_price),
        mark_price=None if mark is None else float(mark),
        unrealized_pnl_usd=None if mark is None else float(position.net.unrealized_pnl(mark)),
        leverage=float(position.leverage),
        stop_loss_price=None if position.stop_price is None else float(position.stop_price),
        take_profit_price=None if position.target_price is None else float(position.target_price),
        opened_at=position.opened_at,
    )
