"""Parent orders on a written-down book: what each strategy does, and what it comes to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.contracts import contract_for
from infrastructure.replay.depth_capture import BookChanged, BookShown, Change, Record, Traded
from infrastructure.replay.recorded_book import RecordedBook
from infrastructure.replay.worked_order import LATENCY, ParentOrder, Worked, work
from services.exec_risk_service.domain.executions import Strategy
from services.exec_risk_service.domain.strategies import twap
from services.exec_risk_service.domain.strategies.slicing import Frame
from shared.trading.orders import Side
from tests.support.markets import BTC

START = datetime(2024, 8, 8, 12, tzinfo=UTC)
INSTRUMENT = contract_for(BTC, 60_000.0).instrument
MINUTE = timedelta(minutes=1)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def side_of(best: int, step: int, levels: int = 20) -> tuple[Change, ...]:
    """One coin on each level, a dollar apart."""
    return tuple((Decimal(best + step * number), Decimal(1)) for number in range(levels))


def refilled(seconds: float, number: int) -> BookChanged:
    """A book around 60,000 in which everything that was taken is back."""
    return BookChanged(after(seconds), number, number, number - 1, side_of(59_999, -1), side_of(60_001, 1))


def calm_minute(*, sold: str = "0.1") -> list[Record]:
    """Every half second the book is whole again, and somebody sells at the bid."""
    records: list[Record] = []
    for number in range(1, 120):
        records.append(refilled(number / 2, number))
        records.append(Traded(after(number / 2 + 0.1), Decimal(59_999), Decimal(sold), Side.SELL))
    return records


def done(strategy: Strategy, quantity: str, *, side: Side = Side.BUY, records: list[Record] | None = None) -> Worked:
    book = RecordedBook()
    book.play(BookShown(START, 0, side_of(59_999, -1), side_of(60_001, 1)))
    wanted = Decimal(quantity)
    frame = Frame(START, MINUTE, 6, "seed")
    schedule = twap.schedule(wanted, book.mid, INSTRUMENT, frame) if strategy is Strategy.TWAP else ()
    parent = ParentOrder(side, wanted, strategy, START, MINUTE, schedule)
    return work(parent, book, calm_minute() if records is None else records, INSTRUMENT)


def test_a_market_order_walks_the_book_once() -> None:
    result = done(Strategy.MARKET, "6")
    assert [fill.price for fill in result.fills] == [60_001 + number for number in range(6)]
    assert {fill.at for fill in result.fills} == {START + LATENCY}
    assert result.arrival_mid == 60_000
    assert result.arrival_bps == pytest.approx(3.5 / 6)
    assert result.vwap_bps == pytest.approx(4.5 / 6, rel=1e-3)
    assert (result.children, result.maker_share, result.taken_at_end) == (1, 0.0, Decimal(0))


def test_slices_meet_a_book_that_has_come_back_and_cost_less() -> None:
    result = done(Strategy.TWAP, "6")
    assert result.children == 6
    assert [fill.price for fill in result.fills] == [60_001] * 6
    assert result.arrival_bps == pytest.approx(1 / 6)
    assert result.filled == 6
    assert result.fills[-1].at - result.fills[0].at > timedelta(seconds=40)


def test_a_seller_pays_on_the_other_side() -> None:
    result = done(Strategy.MARKET, "6", side=Side.SELL)
    assert result.fills[0].price == 59_999
    assert result.arrival_bps == pytest.approx(3.5 / 6)


def test_a_limit_order_rests_behind_the_queue_and_is_filled_as_a_maker() -> None:
    result = done(Strategy.LIMIT, "2")
    assert {fill.price for fill in result.fills if fill.is_maker} == {Decimal(59_999)}
    assert result.maker_share > 0.5
    first = result.fills[0]
    assert first.at == after(5.6), "one coin stood ahead, and a tenth of one is sold every half second"
    assert result.filled == 2


def test_patience_ends_before_the_order_does() -> None:
    result = done(Strategy.LIMIT, "5", records=calm_minute(sold="0.001"))
    assert (result.filled, result.taken_at_end) == (Decimal(5), Decimal(0))
    assert result.maker_share < 0.5


def test_what_is_left_at_the_end_is_taken() -> None:
    result = done(Strategy.MARKET, "25")  # twenty are there
    assert (result.filled, result.taken_at_end) == (Decimal(25), Decimal(5))
    assert [fill.at for fill in result.fills] == [START + LATENCY] * 20 + [START + MINUTE] * 5


def test_a_minute_without_trades_has_no_vwap() -> None:
    with pytest.raises(ValueError, match="no trade"):
        done(Strategy.MARKET, "1", records=[refilled(1, 1)])
