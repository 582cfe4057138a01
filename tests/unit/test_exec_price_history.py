"""The candles that decisions look back on: bounded, in order, read from the exchange where nobody listened."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from statistics import stdev

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.domain.account import AccountState
from services.exec_risk_service.domain.book import Book, Mark
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import CandleClosed, Cause, HistoryObserved, candle_row
from services.exec_risk_service.domain.price_history import HISTORY_CANDLES, PriceHistory
from services.exec_risk_service.domain.recorded import recorded_inputs
from services.exec_risk_service.domain.rules import Context, Rules
from shared.errors import ConnectionLostError
from shared.trading.candles import Candle
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, WALL, Desk, FaultyVenue
from tests.support.markets import BTC, START, Prices, WrittenSource, flat

MINUTE = timedelta(minutes=1)


def candle(number: int, close: float = 100.0, *, spread: float = 1.0, timeframe: str = "1m") -> Candle:
    opened = START + MINUTE * number
    return Candle(BTC, timeframe, opened, close, close + spread, close - spread, close, 10.0)


def history(*closes: float) -> PriceHistory:
    return PriceHistory().with_candles(candle(number, close) for number, close in enumerate(closes))


def desk_with_past(prices: list[Prices], past: int) -> Desk:
    source = WrittenSource(prices, history=past, volume=100_000.0)
    engine = MatchingEngine(source, start=START, wallet=Decimal(10_000))
    store = MemoryStore()
    return Desk(FaultyVenue(engine), MemoryJournal(store), store)


def test_candles_join_in_order_once_and_the_oldest_leave() -> None:
    known = PriceHistory().with_candles(candle(number) for number in range(HISTORY_CANDLES + 5))

    assert len(known.candles) == HISTORY_CANDLES
    assert known.candles[0] == candle(5)
    assert known.with_candles([candle(3), candle(HISTORY_CANDLES + 4, 1.0)]) is known


def test_another_timeframe_begins_anew() -> None:
    longer = candle(10, timeframe="5m")

    assert history(1.0, 2.0).with_candles([longer]).candles == (longer,)
    assert history(1.0, 2.0).with_candles([candle(-30, timeframe="5m")]) == history(1.0, 2.0)


def test_returns_are_fractions_between_neighbours_only() -> None:
    assert history(100.0, 110.0, 99.0).returns() == pytest.approx((0.1, -0.1))
    gap = PriceHistory().with_candles([candle(0, 100.0), candle(2, 200.0), candle(3, 220.0)])
    assert gap.returns() == pytest.approx((0.1,))
    assert list(gap.timed_returns) == [START + 4 * MINUTE]


def test_volatility_is_the_deviation_of_the_returns() -> None:
    assert history(100.0, 110.0, 99.0).volatility() == pytest.approx(stdev([0.1, -0.1]))
    assert history(100.0, 110.0).volatility() is None


def test_atr_is_wilders_average_and_a_gap_is_no_range() -> None:
    known = PriceHistory().with_candles([candle(0, 100.0), candle(1, 103.0), candle(2, 103.0), candle(5, 200.0)])

    # True ranges: 2; from 100 to 104 = 4; 2; after the gap 2.
    assert known.atr(3) == pytest.approx((2 + 4 + 2) / 3 * 2 / 3 + 2 / 3)
    assert known.atr(5) is None
    with pytest.raises(ValueError, match="was 0"):
        known.atr(0)


async def test_recovery_reads_what_closed_before_and_a_restart_only_what_is_missing() -> None:
    desk = desk_with_past([*flat(50_000, 40), *flat(51_000, 40)], past=40)
    await desk.start()

    assert len(desk.book.history[BTC].candles) == 40
    assert desk.book.history[BTC].newest.close_time == START
    await desk.advance(1)
    await desk.candle()
    await desk.advance(5)
    await desk.restart()

    known = desk.book.history[BTC]
    assert [one.close for one in known.candles[-7:]] == [50_000.0] + [51_000.0] * 6
    assert len(known.returns()) == 45  # without a gap
    told = [
        event for event in desk.bus.events if event.payload.metadata.get("input", {}).get("kind") == "HistoryObserved"
    ]
    assert [len(event.payload.metadata["input"]["body"]["rows"]) for event in told] == [40, 5]


async def test_what_was_read_is_part_of_the_recording() -> None:
    desk = desk_with_past([*flat(50_000, 40), *flat(51_000, 40)], past=40)
    await desk.start()
    await desk.advance(1)
    await desk.candle()

    book = type(desk.book)(desk.book.account)
    for recorded in recorded_inputs([*desk.bus.events, *desk.neighbours]):
        step = decide(book, recorded.item, desk.service.ledger.context())
        assert step is not None
        book = step.book

    assert book.history == desk.book.history
    assert len(book.history[BTC].candles) == 41


async def test_a_past_that_cannot_be_read_does_not_keep_the_account_from_recovering() -> None:
    desk = desk_with_past([*flat(50_000, 40), *flat(51_000, 40)], past=40)
    desk.venue.before["candles"] = [ConnectionLostError("klines: timed out")]
    await desk.start()

    assert desk.book.cash.wallet == 10_000
    assert dict(desk.book.history) == {}
    await desk.service.history.read()
    assert len(desk.book.history[BTC].candles) == 40


def test_a_candle_that_is_older_than_the_mark_joins_the_history_and_is_told() -> None:
    context = Context(Rules(), NORMAL, {}, WALL)
    mark = Mark(Decimal(7), START + 10 * MINUTE, WALL)  # set by a trade
    book = Book(ACCOUNT, cash=AccountState().opened(Decimal(100), START), marks={BTC: mark})

    step = decide(book, CandleClosed(Cause("candle", "trace"), candle(3)), context)

    assert step is not None
    assert (step.book.marks[BTC], step.book.history[BTC].candles) == (mark, (candle(3),))
    assert [fact.event_type for fact in step.facts] == ["account.updated"]
    assert decide(step.book, CandleClosed(Cause("again", "trace"), candle(3)), context) is None


def test_a_row_is_the_candle_again() -> None:
    item = HistoryObserved(BTC, "1m", (candle_row(candle(0, 0.1)),), START)

    assert item.candles == (candle(0, 0.1),)
