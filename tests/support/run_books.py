"""The two books of one run, for tests that compare them: the engine's as its admin port shows them, and the desk's."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson

from infrastructure.paper_exchange.admin_api import plain_books
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.supervisor.invariants import BookedFill, ExchangeBooks, Intent, OurBooks
from shared.trading.orders import Side
from tests.support.exec_risk_desk import Desk


def books_json(engine: MatchingEngine) -> dict[str, Any]:
    """Return the engine's books as they arrive over HTTP."""
    books: dict[str, Any] = orjson.loads(orjson.dumps(plain_books(engine.books()), default=str))
    return books


def exchange_books(engine: MatchingEngine) -> ExchangeBooks:
    """Return the engine's books as the report reads them."""
    return ExchangeBooks.from_json(books_json(engine))


def our_books(desk: Desk) -> OurBooks:
    """Return what a desk with a journal in memory holds; its fills as it told them on the bus."""
    cash = desk.book.cash
    return OurBooks(
        wallet=cash.wallet,
        start_wallet=cash.start_wallet,
        realized_pnl=cash.realized_pnl,
        commission=cash.commission,
        funding=cash.funding,
        adjustments=cash.adjustments,
        positions={symbol: position.net.quantity for symbol, position in desk.book.positions.items()},
        intents=tuple(
            Intent(
                client_order_id=order.client_order_id,
                symbol=order.symbol,
                cause_event_id=order.cause_event_id,
                leg=order.leg.value,
                sequence=order.sequence,
                status=order.status.value,
                filled_quantity=order.filled_quantity,
            )
            for order in desk.book.orders.values()
        ),
        fills=tuple(
            _told_fill(payload, payload.metadata["fill"])
            for payload in desk.bus.of("order.updated")
            if "fill" in payload.metadata
        ),
    )


def _told_fill(payload: Any, fill: dict[str, Any]) -> BookedFill:
    return BookedFill(
        symbol=payload.symbol,
        trade_id=int(fill["trade_id"]),
        client_order_id=payload.client_order_id,
        order_id=payload.exchange_order_id or "",
        signed_quantity=Decimal(fill["quantity"]) * (1 if payload.side is Side.BUY else -1),
        price=Decimal(fill["price"]),
        commission=Decimal(fill["commission"]),
        realized_pnl=Decimal(fill["realized_pnl"]),
    )
