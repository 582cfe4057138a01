"""Views and books for planners, and an exchange of three lines that carries their plans out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.exec_risk_service.domain.quotes import Level, Quote, is_worse
from services.exec_risk_service.domain.strategies.view import (
    CancelResting,
    ChildOrder,
    GiveUp,
    Plan,
    Planner,
    RestingChild,
    Send,
    SliceView,
)
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO
from shared.trading.orders import OrderType, Side

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
BTCUSDT = Instrument(
    symbol="BTCUSDT",
    tick_size=Decimal("0.1"),
    lot_step=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(1000),
    max_market_quantity=Decimal(120),
    min_notional=Decimal(100),
    max_leverage=125,
)


def book(bid: object = "50000.0", ask: object = "50000.1", *, size: object = 1, levels: int = 20) -> Quote:
    """Return a book with ``size`` on each of ``levels`` prices, one USDT apart."""
    first_bid, first_ask, quantity = Decimal(str(bid)), Decimal(str(ask)), Decimal(str(size))
    return Quote(
        "BTCUSDT",
        bids=tuple(Level(first_bid - number, quantity) for number in range(levels)),
        asks=tuple(Level(first_ask + number, quantity) for number in range(levels)),
        at=T0,
    )


def view(**changes: Any) -> SliceView:
    """Return the view of a new execution that buys 1 BTC within 0.5 % of 50,000."""
    start = SliceView(
        side=Side.BUY,
        instrument=BTCUSDT,
        target=Decimal(1),
        filled=ZERO,
        guard_price=Decimal(50_250),
        arrival_price=Decimal(50_000),
        started_at=T0,
        ends_at=T0 + timedelta(minutes=30),
        now=T0,
        quote=book(),
    )
    return replace(start, **changes)


@dataclass(frozen=True, slots=True)
class Sent:
    """One child as it was sent, and what came of it."""

    child: ChildOrder
    at: datetime
    filled: Decimal


def carry_out(
    start: SliceView,
    planner: Planner,
    *,
    moments: Sequence[datetime],
    quotes: Callable[[datetime], Quote | None],
    fill_share: Callable[[int], Decimal] = lambda _: Decimal(1),
) -> tuple[SliceView, list[Sent], Plan | None]:
    """Ask ``planner`` at each of ``moments`` until it gives up; a taker gets ``fill_share`` of what it asks for."""
    seen, sent, planned = start, list[Sent](), None
    for moment in moments:
        seen = replace(seen, now=moment, quote=quotes(moment))
        if moment >= seen.ends_at:
            break
        seen = _met(seen, sent, fill_share(len(sent)))
        planned = planner(seen)
        if isinstance(planned, GiveUp):
            break
        if isinstance(planned, CancelResting):
            seen = replace(seen, resting=None, chases=seen.chases + 1)
        elif isinstance(planned, Send):
            seen = _accepted(seen, planned.child, sent, fill_share(len(sent)))
    return seen, sent, planned


def _met(seen: SliceView, sent: list[Sent], share: Decimal) -> SliceView:
    """Fill ``share`` of the child that rests where the market came to it."""
    if seen.resting is None or not sent or not _reaches(seen, sent[-1].child):
        return seen
    open_quantity = sent[-1].child.quantity - sent[-1].filled
    got = seen.on_grid(open_quantity * share)
    sent[-1] = replace(sent[-1], filled=sent[-1].filled + got)
    return replace(seen, filled=seen.filled + got, resting=seen.resting if got < open_quantity else None)


def _accepted(seen: SliceView, child: ChildOrder, sent: list[Sent], share: Decimal) -> SliceView:
    rests = child.time_in_force is not None and child.time_in_force.rests
    got = ZERO if rests or not _reaches(seen, child) else seen.on_grid(child.quantity * share)
    sent.append(Sent(child, seen.now, got))
    return replace(
        seen,
        filled=seen.filled + got,
        children=seen.children + 1,
        last_sent=seen.now,
        missed=not rests and got < child.quantity,
        resting=RestingChild(child.price, seen.now) if rests and child.price is not None else None,
    )


def _reaches(seen: SliceView, child: ChildOrder) -> bool:
    if child.order_type is OrderType.MARKET or child.price is None or seen.quote is None:
        return True
    return not is_worse(seen.quote.offers(seen.side)[0].price, child.price, seen.side)


def every(seconds: float, count: int) -> list[datetime]:
    """Return ``count`` moments, ``seconds`` apart, from the start on."""
    return [T0 + timedelta(seconds=seconds * number) for number in range(count)]
