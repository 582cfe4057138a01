"""The book is the fold of unique fills, whatever comes twice, late, or in another order."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import (
    Action,
    AnswerLost,
    CancelRefused,
    CandleClosed,
    Cause,
    Input,
    ProvenAbsent,
    SendRefused,
    SendStarted,
    Signal,
    SignalReceived,
    UpkeepDue,
    WalletObserved,
)
from services.exec_risk_service.domain.reports import FillReport, OrderReport
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import Step, SubmitOrder
from shared.trading.candles import Candle
from shared.trading.instruments import Instrument
from shared.trading.orders import OrderStatus, Side
from shared.trading.positions import Fill
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, WALL
from tests.support.markets import BTC, START

INSTRUMENT = Instrument(
    BTC, Decimal("0.1"), Decimal("0.001"), Decimal("0.001"), Decimal(100), Decimal(100), Decimal(5), 20
)
CONTEXT = Context(Rules(), NORMAL, {BTC: INSTRUMENT}, WALL)
STATUSES = [status for status in OrderStatus if status not in (OrderStatus.INITIALIZED, OrderStatus.SUBMITTED)]


def apply(book: Book, item: Input, log: list[Step]) -> Book:
    step = decide(book, item, CONTEXT)
    if step is None:
        return book
    log.append(step)
    return step.book


def book_with_entry(log: list[Step]) -> tuple[Book, str]:
    """Return a book whose entry of 0.01 BTC was sent."""
    book = apply(Book(ACCOUNT), WalletObserved(Decimal(10_000), START), log)
    candle = Candle(BTC, "1m", START - timedelta(minutes=1), 50_000, 50_000, 50_000, 50_000, 1)
    book = apply(book, CandleClosed(Cause("candle", "trace"), candle), log)
    signal = Signal(BTC, Action.BUY, 0.9, "m", Decimal(50_000), Decimal(500), Decimal(5), None, None, START)
    book = apply(book, SignalReceived(Cause("signal", "trace"), signal), log)
    name = next(r.client_order_id for r in log[-1].requests if isinstance(r, SubmitOrder))
    return apply(book, SendStarted(name), log), name


def fill(trade_id: int, side: Side, lots: int, price: int, *, owner: str) -> Fill:
    return Fill(
        symbol=BTC,
        trade_id=trade_id,
        client_order_id=owner,
        exchange_order_id="77" if owner else f"x{trade_id}",
        side=side,
        price=Decimal(price),
        quantity=Decimal(lots) / 1000,
        commission=Decimal(lots) / 100,
        realized_pnl=Decimal(price % 7),
        time=START + timedelta(seconds=trade_id),
    )


@st.composite
def trades(draw: st.DrawFn) -> list[tuple[int, bool, Side, int, int]]:
    """Unique trades: of our entry (at most 10 lots, BUY) or of strangers."""
    left, made = 10, []
    for trade_id in range(1, draw(st.integers(1, 12)) + 1):
        ours = left > 0 and draw(st.booleans())
        lots = draw(st.integers(1, left if ours else 30))
        left -= lots if ours else 0
        side = Side.BUY if ours else draw(st.sampled_from(Side))
        made.append((trade_id, ours, side, lots, draw(st.integers(49_000, 51_000))))
    return made


@settings(max_examples=150)
@given(data=st.data(), made=trades())
def test_the_book_is_the_fold_of_unique_fills(
    data: st.DataObject, made: list[tuple[int, bool, Side, int, int]]
) -> None:
    log: list[Step] = []
    book, name = book_with_entry(log)
    fills = [fill(t, side, lots, price, owner=name if ours else "") for t, ours, side, lots, price in made]
    order_of_arrival = data.draw(st.permutations([*fills, *data.draw(st.lists(st.sampled_from(fills), max_size=8))]))

    for one in order_of_arrival:
        book = apply(book, _report(data, one), log)

    assert _quantity(book) == sum((f.signed_quantity for f in fills), Decimal(0))
    assert book.cash.wallet == 10_000 + sum((f.realized_pnl - f.commission for f in fills), Decimal(0))
    assert book.cash.wallet == book.cash.expected_wallet
    entry = book.orders[name]
    assert entry.filled_quantity == sum((f.quantity for f in fills if f.client_order_id), Decimal(0))
    told = [fact.payload.metadata["fill"]["trade_id"] for step in log for fact in step.facts if _has_fill(fact.payload)]
    assert sorted(told) == [f.trade_id for f in fills]
    assert [f.trade_id for step in log for f in step.fills] == told
    opened, closed = _positions_in(log, "position.opened"), _positions_in(log, "position.closed")
    assert set(closed) <= set(opened)
    assert len(closed) == len(set(closed))


def _report(data: st.DataObject, one: Fill) -> Input:
    if data.draw(st.booleans()):
        return FillReport(one)
    status = data.draw(st.sampled_from([OrderStatus.PARTIALLY_FILLED, OrderStatus.NEW]))
    return OrderReport(one.client_order_id, BTC, status, one.time, one.quantity, one.exchange_order_id, fill=one)


def _quantity(book: Book) -> Decimal:
    position = book.positions.get(BTC)
    return position.net.quantity if position else Decimal(0)


def _positions_in(log: list[Step], event_type: str) -> list[str]:
    payloads: list[Any] = [fact.payload for step in log for fact in step.facts if fact.event_type == event_type]
    return [payload.position_id for payload in payloads]


def _has_fill(payload: Any) -> bool:
    return "fill" in payload.metadata


def noise(name: str) -> st.SearchStrategy[Input]:
    """Anything that could be said about an order, true or not."""
    lots = st.integers(0, 10).map(lambda count: Decimal(count) / 1000)
    trade = st.integers(1, 5).map(lambda trade_id: fill(trade_id, Side.BUY, 2, 50_000, owner=name))
    return st.one_of(
        st.builds(OrderReport, st.just(name), st.just(BTC), st.sampled_from(STATUSES), st.just(START), lots),
        st.builds(SendRefused, st.just(name), st.just("refused"), st.just(-2019), st.booleans()),
        st.just(AnswerLost(name, "lost")),
        st.just(ProvenAbsent(name, "absent")),
        st.just(CancelRefused(name, "no")),
        st.just(UpkeepDue(BTC, START)),
        st.builds(FillReport, trade),
    )


@settings(max_examples=200)
@given(data=st.data())
def test_an_order_that_ended_stays_ended_and_is_answered_once(data: st.DataObject) -> None:
    log: list[Step] = []
    book, name = book_with_entry(log)
    ended: OrderStatus | None = None

    for _ in range(data.draw(st.integers(1, 15))):
        book = apply(book, data.draw(noise(name)), log)
        status = book.orders[name].status
        if ended is not None:
            assert status is ended or (ended is OrderStatus.CANCELED and status is OrderStatus.FILLED)
        ended = status if status.is_terminal else None

    results = [
        fact
        for step in log
        for fact in step.facts
        if fact.event_type == "execution.result" and fact.payload.metadata.get("leg") == "entry"
    ]
    is_over = book.orders[name].status.is_terminal and not book.executions  # a refusal of the moment is tried again
    assert len(results) == (1 if is_over else 0)
    submitted = [r for step in log for r in step.requests if isinstance(r, SubmitOrder)]
    assert len({r.client_order_id for r in submitted}) == len(submitted)
    filled = {f.trade_id for step in log for f in step.fills}
    assert (_quantity(book) > 0) == bool(filled)


def test_steps_count_without_gaps() -> None:
    log: list[Step] = []
    book, _ = book_with_entry(log)

    assert [step.number for step in log] == list(range(1, book.step + 1))
