"""Orders in our name that are not in our journal: somebody else trades this account with another journal.

Every order of ours is an intent in the journal before it is sent. So a new order with our prefix that the book does not
know was sent by another executor, which the lease cannot see because it lives in another database. Both see the other's
orders in their user streams, and both keep entries back until a person has stopped one of them.
"""

from __future__ import annotations

import structlog

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.inputs import TradingRestricted
from services.exec_risk_service.domain.reports import OrderReport, VenueReport
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import OUR_PREFIX
from shared.trading.orders import OrderStatus

#: Only an order that begins is proof: the book forgets orders that ended long ago, and a late word about one may come.
_BEGINNING = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)

log = structlog.get_logger(__name__)


class ForeignOrders:
    """Looks at the user stream for orders of another executor."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def see(self, report: VenueReport) -> None:
        """Keep entries back when ``report`` is about an order of another executor; the first one is enough."""
        book = self._ledger.book
        if not isinstance(report, OrderReport) or not is_foreign(report, book):
            return
        if book.trading.restriction(TradingCause.FOREIGN_EXECUTOR) is None:
            log.critical("foreign_executor", client_order_id=report.client_order_id, symbol=report.symbol)
            reason = (
                f"order {report.client_order_id} of {report.symbol} carries our prefix and is not in our journal: "
                "another exec-risk-service trades this account; stop one of the two"
            )
            await self._ledger.apply(
                TradingRestricted(TradingCause.FOREIGN_EXECUTOR, reason, "foreign-orders", severity="CRITICAL")
            )


def is_foreign(report: OrderReport, book: Book) -> bool:
    """Tell whether an order that begins carries our prefix and was never ours."""
    if not report.client_order_id.startswith(OUR_PREFIX) or report.status not in _BEGINNING:
        return False
    # An emergency stop keeps a journal of its own, because it must work without this one.
    is_stopping = book.trading.stop is not None
    return not is_stopping and book.find_order(report.client_order_id, report.exchange_order_id, report.symbol) is None
