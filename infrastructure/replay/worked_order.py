"""One parent order worked on a recorded book by the planners that exec-risk trades with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.records import Level
from infrastructure.replay.depth_capture import Record, Traded
from infrastructure.replay.recorded_book import QueueFill, RecordedBook
from services.exec_risk_service.domain import quotes
from services.exec_risk_service.domain.execution_rules import PLANNERS
from services.exec_risk_service.domain.executions import Slice, Strategy, Urgency
from services.exec_risk_service.domain.strategies.view import (
    CancelResting,
    ChildOrder,
    GiveUp,
    RestingChild,
    Send,
    SliceView,
    Wait,
)
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO, round_price
from shared.trading.orders import OrderType, Side, TimeInForce

#: How often a planner is asked while nothing happens to its orders; exec-risk looks as often.
_LOOK = timedelta(milliseconds=250)
#: From a decision to its effect in the book.
LATENCY = timedelta(milliseconds=20)
#: Most slippage against the arrival price that is accepted, percent; exec-risk's own limit.
TOLERANCE_PCT = Decimal("0.5")
#: Levels of the book that a planner sees.
_SEEN_LEVELS = 100
_BPS = 10_000


@dataclass(frozen=True, slots=True)
class ParentOrder:
    """What is to be traded, and how.

    Attributes:
        quantity: Base asset.
        start: Moment of the decision; its middle price is the arrival price.
        duration: What is not traded by the end of it is then taken from the book.
        schedule: Slices of TWAP and VWAP, with times of the recording.
        tolerance_pct: Most slippage against the arrival price that the planner accepts, percent.
    """

    side: Side
    quantity: Decimal
    strategy: Strategy
    start: datetime
    duration: timedelta
    schedule: tuple[Slice, ...] = ()
    urgency: Urgency = Urgency.NORMAL
    tolerance_pct: Decimal = TOLERANCE_PCT

    @property
    def end(self) -> datetime:
        return self.start + self.duration


@dataclass(frozen=True, slots=True)
class PartFill:
    """One fill of a child order."""

    at: datetime
    price: Decimal
    quantity: Decimal
    is_maker: bool


@dataclass(frozen=True, slots=True)
class Worked:
    """What a parent order came to.

    Attributes:
        arrival_mid: Half way between the best prices at the decision, USDT.
        interval_vwap: Mean price of all recorded trades from start to end, by volume, USDT.
        children: Child orders sent.
        taken_at_end: Base asset that was left at the end and then taken.
    """

    parent: ParentOrder
    arrival_mid: Decimal
    interval_vwap: Decimal
    fills: tuple[PartFill, ...]
    children: int
    taken_at_end: Decimal

    @property
    def filled(self) -> Decimal:
        return sum((fill.quantity for fill in self.fills), ZERO)

    @property
    def average_price(self) -> Decimal:
        """Mean price of the fills, USDT."""
        return sum((fill.quantity * fill.price for fill in self.fills), ZERO) / self.filled

    @property
    def maker_share(self) -> float:
        """Share of the quantity that was filled while resting."""
        return float(sum((fill.quantity for fill in self.fills if fill.is_maker), ZERO) / self.filled)

    @property
    def arrival_bps(self) -> float:
        """Cost against the arrival price in basis points; above 0 is worse."""
        return self._against(self.arrival_mid)

    @property
    def vwap_bps(self) -> float:
        """Cost against the interval's VWAP in basis points; above 0 is worse."""
        return self._against(self.interval_vwap)

    def _against(self, reference: Decimal) -> float:
        return float((self.average_price / reference - 1) * self.parent.side.sign) * _BPS


def work(
    parent: ParentOrder,
    book: RecordedBook,
    records: Iterable[Record],
    instrument: Instrument,
    *,
    latency: timedelta = LATENCY,
) -> Worked:
    """Play ``records`` from the start to the end of ``parent`` and trade it meanwhile.

    Args:
        parent: The order.
        book: The book at its start; it is played on.
        records: What follows in the recording; reading stops at the end of the order.
        instrument: Grids and smallest order.
        latency: From a decision to its effect in the book.

    Raises:
        ValueError: Nothing was traded in the recording meanwhile.
    """
    desk = _Desk(parent, book, instrument, latency)
    volume, value = ZERO, ZERO
    desk.look(parent.start)
    for record in records:
        if record.at >= parent.end:
            break
        if isinstance(record, Traded):
            volume += record.quantity
            value += record.quantity * record.price
        desk.play(record)
    if not volume:
        raise ValueError(f"the recording has no trade between {parent.start} and {parent.end}")
    return desk.finish(value / volume)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is on its way to the exchange; ``child`` is None for a cancel."""

    arrives: datetime
    child: ChildOrder | None


class _Desk:
    """The state of a parent order: what rests, what is under way, what was filled."""

    def __init__(self, parent: ParentOrder, book: RecordedBook, instrument: Instrument, latency: timedelta) -> None:
        self._parent = parent
        self._book = book
        self._instrument = instrument
        self._latency = latency
        self._arrival = book.mid
        self._fills: list[PartFill] = []
        self._filled = ZERO
        self._request: _Request | None = None
        self._resting: RestingChild | None = None
        self._next_look = parent.start
        self._children = 0
        self._chases = 0
        self._missed = False
        self._has_given_up = False
        self._last_sent: datetime | None = None

    def play(self, record: Record) -> None:
        """Let what is under way arrive, apply ``record``, and decide what is next."""
        if self._request is not None and self._request.arrives <= record.at:
            self._arrive(self._request)
        for fill in self._book.play(record):
            self._note_queue_fill(fill, record.at)
        if record.at >= self._next_look:
            self.look(record.at)

    def look(self, now: datetime) -> None:
        """Ask the planner."""
        self._next_look = now + _LOOK
        if self._request is not None or self._has_given_up:
            return
        match PLANNERS[self._parent.strategy](self._view(now)):
            case Send(child):
                self._request = _Request(now + self._latency, child)
                self._children += 1
                self._last_sent = now
            case CancelResting():
                self._request = _Request(now + self._latency, None)
            case Wait(until):
                self._next_look = min(self._next_look, until or self._next_look)
            case GiveUp():
                self._has_given_up = True

    def finish(self, interval_vwap: Decimal) -> Worked:
        """Take what is left and return what it all came to."""
        self._book.leave(self._children)
        left = self._parent.quantity - self._filled
        for level in self._book.take(self._parent.side, left, None) if left else ():
            self._note(self._parent.end, level, is_maker=False)
        return Worked(self._parent, self._arrival, interval_vwap, tuple(self._fills), self._children, left)

    def _view(self, now: datetime) -> SliceView:
        parent = self._parent
        worst = self._arrival * (1 + parent.side.sign * parent.tolerance_pct / 100)
        return SliceView(
            side=parent.side,
            instrument=self._instrument,
            target=parent.quantity,
            filled=self._filled,
            guard_price=round_price(worst, self._instrument.tick_size, up=parent.side is Side.SELL),
            arrival_price=self._arrival,
            started_at=parent.start,
            ends_at=parent.end,
            now=now,
            quote=quote_of(self._book, self._instrument.symbol, now),
            urgency=parent.urgency,
            schedule=parent.schedule,
            resting=self._resting,
            chases=self._chases,
            missed=self._missed,
            children=self._children,
            last_sent=self._last_sent,
        )

    # -- what the exchange does ------------------------------------------------------------------------------------

    def _arrive(self, request: _Request) -> None:
        self._request = None
        self._next_look = request.arrives
        if request.child is None:
            self._book.leave(self._children)
            self._chases += self._resting is not None
            self._resting = None
        elif request.child.time_in_force is TimeInForce.GTX:
            self._rest(request.child, request.arrives)
        else:
            self._take(request.child, request.arrives)

    def _rest(self, child: ChildOrder, now: datetime) -> None:
        """Post-only: refused when the market moved onto its price, which the planner then sees."""
        assert child.price is not None, "a post-only order has a limit"
        if not self._book.crosses(self._parent.side, child.price):
            self._book.join(self._children, self._parent.side, child.price, child.quantity)
            self._resting = RestingChild(child.price, now)

    def _take(self, child: ChildOrder, now: datetime) -> None:
        bound = child.price if child.order_type is OrderType.LIMIT else None
        got = self._book.take(self._parent.side, child.quantity, bound)
        for level in got:
            self._note(now, level, is_maker=False)
        self._missed = sum((level.quantity for level in got), ZERO) < child.quantity

    def _note_queue_fill(self, fill: QueueFill, now: datetime) -> None:
        self._note(now, Level(fill.price, fill.quantity), is_maker=True)
        if not self._book.rests(fill.order_id):
            self._resting = None
            self._next_look = now

    def _note(self, now: datetime, level: Level, *, is_maker: bool) -> None:
        self._fills.append(PartFill(now, level.price, level.quantity, is_maker))
        self._filled += level.quantity


def quote_of(book: RecordedBook, symbol: str, now: datetime) -> quotes.Quote:
    """Return what a planner sees of ``book``."""
    bids, asks = (
        tuple(quotes.Level(level.price, level.quantity) for level in book.levels(taker, _SEEN_LEVELS))
        for taker in (Side.SELL, Side.BUY)
    )
    return quotes.Quote(symbol, bids, asks, now)
