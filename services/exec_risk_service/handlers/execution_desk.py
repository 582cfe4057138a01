"""The timer of the executions: looks at those that have something to decide, with the books of their symbols."""

from __future__ import annotations

from services.exec_risk_service.domain.execution_rules import child_under_way, needs_attention
from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.inputs import ExecutionsDue
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.quote_board import QuoteBoard
from shared.clock import Clock


class ExecutionDesk:
    """Drives executions by time; reports of the exchange drive them through the ledger."""

    def __init__(self, ledger: Ledger, quotes: QuoteBoard, *, clock: Clock, market_clock: Clock) -> None:
        self._ledger = ledger
        self._quotes = quotes
        self._clock = clock
        self._market_clock = market_clock

    async def work(self) -> None:
        """Go on with every execution that is due.

        Raises:
            ConnectionLostError: The journal cannot be reached; the next call tries again.
        """
        due = self._due()
        if not due:
            return
        sides = {execution.symbol: execution.side for execution in due}
        quotes = [await self._quotes.quote(symbol, side) for symbol, side in sorted(sides.items())]
        known = tuple(quote for quote in quotes if quote is not None)
        await self._ledger.apply(ExecutionsDue(self._market_clock.now(), known))

    def _due(self) -> list[Execution]:
        book = self._ledger.book
        at, now = self._market_clock.now(), self._clock.now()
        return [
            execution
            for execution in book.executions.values()
            if needs_attention(execution, child_under_way(book.orders, execution), at, now)
        ]
