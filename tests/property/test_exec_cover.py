"""The stop has the size of the position, whatever comes in whichever order, and no position loses the stop it has."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.cover import covers
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import Input, SendStarted, UpkeepDue
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.protection import Cover
from services.exec_risk_service.domain.reports import OrderReport
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import CancelOrder, SubmitOrder
from shared.trading.orders import OrderStatus, Side
from tests.property.test_exec_book import INSTRUMENT, book_with_entry, fill
from tests.support.exec_risk_desk import NORMAL, WALL
from tests.support.markets import BTC, START


class Exchange:
    """Accepts what the steps ask for, in any order and as late as a test likes."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.now = WALL
        self.waiting: list[SubmitOrder | CancelOrder] = []

    def give(self, item: Input) -> None:
        context = Context(Rules(), NORMAL, {BTC: INSTRUMENT}, self.now)
        step = decide(self.book, item, context)
        if step is not None:
            self.book = step.book
            self.waiting += [r for r in step.requests if isinstance(r, SubmitOrder | CancelOrder)]

    def answer(self, index: int) -> None:
        request = self.waiting.pop(index)
        name = request.client_order_id
        if isinstance(request, SubmitOrder):
            self.give(SendStarted(name))
        order = self.book.orders[name]
        if order.status is OrderStatus.SUBMITTED and isinstance(request, SubmitOrder):
            self.give(OrderReport(name, BTC, OrderStatus.NEW, START, algo_id=f"a-{name}"))
        elif isinstance(request, CancelOrder):
            self.give(OrderReport(name, BTC, OrderStatus.CANCELED, START, algo_id=f"a-{name}"))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_stop_has_the_size_of_the_position_after_any_order_of_fills_and_answers(data: st.DataObject) -> None:
    book, entry = book_with_entry([])
    exchange = Exchange(book)
    filled = 0
    for pause in data.draw(st.lists(st.integers(0, 400), max_size=30)):
        exchange.now += timedelta(milliseconds=pause)
        choice = data.draw(st.sampled_from(["fill", "answer", "upkeep"]))
        if choice == "fill" and filled < 10:
            filled = _fill_more(exchange, entry, filled, data.draw(st.integers(1, 10 - filled)))
        elif choice == "answer" and exchange.waiting:
            exchange.answer(data.draw(st.integers(0, len(exchange.waiting) - 1)))
        else:
            exchange.give(UpkeepDue(BTC, START))
        _assert_never_bare(exchange.book)

    if filled < 10:
        _fill_more(exchange, entry, filled, 10 - filled)
    exchange.give(UpkeepDue(BTC, START))
    while exchange.waiting:
        exchange.answer(0)
    position = exchange.book.positions[BTC]
    stops = [o for o in exchange.book.open_orders(BTC) if o.leg is Leg.STOP]
    assert [(stop.quantity, stop.trigger_price) for stop in stops] == [(position.size, position.stop_price)]
    assert position.cover.since is None


def _fill_more(exchange: Exchange, entry: str, filled: int, lots: int) -> int:
    """Report one more trade of the entry; return what is filled then, in lots of 0.001."""
    filled += lots
    one = fill(filled, Side.BUY, lots, 49_900 + 20 * filled, owner=entry)
    status = OrderStatus.PARTIALLY_FILLED if filled < 10 else OrderStatus.FILLED
    exchange.give(OrderReport(entry, BTC, status, one.time, Decimal(filled) / 1000, "77", fill=one))
    return filled


def _assert_never_bare(book: Book) -> None:
    """Once a stop rested, one always does: a cancel is only asked for while another one stays."""
    stops = [o for o in book.orders.values() if o.leg is Leg.STOP]
    rested = [o for o in stops if o.status in (OrderStatus.NEW, OrderStatus.CANCELED)]
    if rested:
        assert any(o.status is OrderStatus.NEW and not o.cancel_requested for o in stops)
    position = book.positions.get(BTC)
    if position is not None:
        assert (position.cover.since is None) == covers(book.orders.values(), position)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_the_clock_of_a_position_adds_up(moves: list[tuple[int, bool]]) -> None:
    cover, now, naked, total = Cover(), WALL, False, 0
    for seconds, is_covered in moves:
        now += timedelta(seconds=seconds)
        total += seconds if naked else 0
        cover, naked = cover.at(now, is_covered=is_covered), not is_covered
        assert cover.seconds(now) == pytest.approx(total)
