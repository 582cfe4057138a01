"""exec-risk's journal in memory that remembers intents as they were decided, orders and fills as they ended."""

from __future__ import annotations

from infrastructure.replay.recorded_run import new_intents
from infrastructure.supervisor.invariants import BookedFill, Intent, OurBooks
from services.exec_risk_service.adapters.memory_journal import MemoryJournal
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.ports import Commit
from shared.trading.positions import Fill


class StepLog(MemoryJournal):
    """A journal that also remembers what its steps did.

    Attributes:
        intents: Every order that exec-risk decided to send, as it was when it was committed.
        orders: Every order as it is now, by client order id.
        fills: Every trade that was booked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.intents: list[Order] = []
        self.orders: dict[str, Order] = {}
        self.fills: list[Fill] = []

    async def commit(self, step: Step) -> Commit:
        verdict = await super().commit(step)
        if verdict is Commit.STORED:
            self.intents += new_intents(step)
            self.orders |= {order.client_order_id: order for order in step.orders}
            self.fills += step.fills
        return verdict

    def books(self, book: Book) -> OurBooks:
        """Return our side of the account, for the comparison with the exchange's."""
        cash = book.cash
        return OurBooks(
            wallet=cash.wallet,
            start_wallet=cash.start_wallet,
            realized_pnl=cash.realized_pnl,
            commission=cash.commission,
            funding=cash.funding,
            adjustments=cash.adjustments,
            positions={symbol: position.net.quantity for symbol, position in book.positions.items()},
            intents=tuple(_intent(order) for order in self.orders.values()),
            fills=tuple(_booked(fill) for fill in self.fills),
        )


def _intent(order: Order) -> Intent:
    return Intent(
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        cause_event_id=order.cause_event_id,
        leg=order.leg.value,
        sequence=order.sequence,
        status=order.status.value,
        filled_quantity=order.filled_quantity,
    )


def _booked(fill: Fill) -> BookedFill:
    return BookedFill(
        symbol=fill.symbol,
        trade_id=fill.trade_id,
        client_order_id=fill.client_order_id,
        order_id=fill.exchange_order_id,
        signed_quantity=fill.signed_quantity,
        price=fill.price,
        commission=fill.commission,
        realized_pnl=fill.realized_pnl,
    )
