"""What every journal must do, in memory and in PostgreSQL: all or nothing, once, in order, for one owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from services.exec_risk_service.adapters import migrations
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.adapters.postgres_journal import PostgresJournal
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.executions import Strategy
from services.exec_risk_service.domain.inputs import (
    Action,
    Cause,
    FillsConfirmed,
    HistoryObserved,
    Signal,
    SignalReceived,
    TradingRestricted,
    WalletObserved,
)
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.price_history import HISTORY_CANDLES
from services.exec_risk_service.domain.reports import FillReport
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from services.exec_risk_service.ports import Commit, OrderJournal, StoredFact
from shared.clock import SystemClock
from shared.errors import ConnectionLostError, InvalidInputError
from shared.postgres.migrate import migrate
from shared.postgres.pool import PostgresPool
from shared.trading.orders import Side
from shared.trading.positions import Fill
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, WALL, desk_on
from tests.support.markets import BTC, START, Prices, flat

OpenJournal = Callable[[], OrderJournal]
CONTEXT = Context(Rules(), NORMAL, {}, WALL)


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """URL of an empty database, or None for the memory; not async, so that the server starts outside the loop."""
    return None if request.param == "memory" else str(request.getfixturevalue("database_url"))


@pytest.fixture
async def open_journal(url: str | None) -> AsyncIterator[OpenJournal]:
    """Give a function that opens one more journal on the same store."""
    if url is None:
        store = MemoryStore()
        yield lambda: MemoryJournal(store)
        return
    await migrate(url, "exec_risk", Path(migrations.__path__[0]), clock=SystemClock())
    pool = PostgresPool(url, clock=SystemClock(), max_size=3)
    await pool.start()
    yield lambda: PostgresJournal(pool)
    await pool.stop()


def wallet_step(book: Book, wallet: int = 10_000) -> Step:
    step = decide(book, WalletObserved(Decimal(wallet), START), CONTEXT)
    assert step is not None
    return step


def refused_signal(book: Book, name: str = "signal-1") -> Step:
    signal = Signal(BTC, Action.BUY, 0.9, "test", Decimal(100), Decimal(500), None, None, None, START)
    step = decide(book, SignalReceived(Cause(name, "trace-1"), signal), CONTEXT)
    assert step is not None
    return step


def fill_step(book: Book, trade_id: int = 7) -> Step:
    fill = Fill(BTC, trade_id, "", "1", Side.BUY, Decimal("100.5"), Decimal("0.1"), Decimal("0.01"), Decimal(0), START)
    step = decide(book, FillReport(fill), CONTEXT)
    assert step is not None
    return step


async def test_a_new_account_is_empty(open_journal: OpenJournal) -> None:
    assert await open_journal().load(ACCOUNT) == Book(ACCOUNT)


async def test_what_was_stored_is_loaded_again(open_journal: OpenJournal) -> None:
    journal = open_journal()
    step = wallet_step(await journal.load(ACCOUNT))

    assert await journal.commit(step) is Commit.STORED

    assert await open_journal().load(ACCOUNT) == step.book


async def test_a_halt_is_loaded_again(open_journal: OpenJournal) -> None:
    journal = open_journal()
    halt = TradingRestricted(TradingCause.OPERATOR, "hands off", "ada", to=TradingState.HALTED)
    step = decide(await journal.load(ACCOUNT), halt, CONTEXT)
    assert step is not None

    assert await journal.commit(step) is Commit.STORED

    assert (await open_journal().load(ACCOUNT)).trading == step.book.trading


class ReloadingJournal:
    """Opens the store anew after every commit and compares what it finds with what was meant."""

    def __init__(self, open_journal: OpenJournal) -> None:
        self._open = open_journal
        self._journal = open_journal()
        self.commits = 0

    async def load(self, account: str) -> Book:
        return await self._journal.load(account)

    async def commit(self, step: Step) -> Commit:
        verdict = await self._journal.commit(step)
        self._journal = self._open()
        found = await self._journal.load(ACCOUNT)
        assert found == step.book
        assert list(found.orders) == list(step.book.orders)
        self.commits += 1
        return verdict

    async def unpublished(self, limit: int) -> tuple[StoredFact, ...]:
        return await self._journal.unpublished(limit)

    async def mark_published(self, positions: Collection[int]) -> None:
        await self._journal.mark_published(positions)


async def test_after_every_step_of_two_trades_the_loaded_book_is_the_book(open_journal: OpenJournal) -> None:
    prices: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 30)]
    journal = ReloadingJournal(open_journal)
    desk = desk_on(prices, journal=journal, rates={START + timedelta(hours=7): Decimal("0.0001")}, start=START)
    await desk.start()
    await desk.candle()
    await desk.signal("BUY")
    await desk.advance(4)
    await desk.candle()
    await desk.signal("SELL")
    await desk.candle()
    await desk.signal("BUY")
    await desk.signal("SELL", confidence=0.1)

    assert journal.commits > 30
    assert_sound(desk)


async def test_executions_on_their_way_are_loaded_as_they_were(open_journal: OpenJournal) -> None:
    journal = ReloadingJournal(open_journal)
    desk = desk_on(flat(50_000, 30), journal=journal)
    await desk.start()
    await desk.candle()
    await desk.ask("BUY", position_size_usd=990.0, execution_strategy="TWAP")
    await desk.advance(1)
    await desk.tick(1.0)
    await desk.ask("SELL", position_size_usd=300.0, reduce_only=True)  # refused: the symbol is busy
    await desk.advance(4)
    await desk.tick(1.0)
    await desk.advance(2)
    await desk.tick(1.0)
    await desk.rebalance((BTC, -300.0))
    await desk.ask("SELL", position_size_usd=300.0, reduce_only=True, execution_strategy="LIMIT", urgency="LOW")

    (working,) = desk.book.executions.values()
    assert (working.leg, working.asked) == (Leg.REDUCE, Strategy.LIMIT)
    assert BTC in desk.book.slippage
    found = await open_journal().load(ACCOUNT)
    assert {**found.executions} == {**desk.book.executions}
    assert {**found.slippage} == {**desk.book.slippage}


async def test_a_cause_is_handled_once(open_journal: OpenJournal) -> None:
    journal = open_journal()
    book = await journal.load(ACCOUNT)
    first = refused_signal(book)
    assert await journal.commit(first) is Commit.STORED

    again = refused_signal(first.book)

    assert await journal.commit(again) is Commit.DUPLICATE
    assert await open_journal().load(ACCOUNT) == first.book
    assert len(await _waiting(open_journal)) == len(first.facts)


async def test_a_trade_is_booked_once_even_when_the_memory_forgot_it(open_journal: OpenJournal) -> None:
    journal = open_journal()
    first = fill_step(await journal.load(ACCOUNT))
    assert await journal.commit(first) is Commit.STORED
    forgetful = replace(first.book, trades={})

    assert await journal.commit(fill_step(forgetful)) is Commit.DUPLICATE

    assert await open_journal().load(ACCOUNT) == first.book


async def test_an_intent_that_exists_refuses_the_whole_step(open_journal: OpenJournal) -> None:
    desk = desk_on(flat(50_000, 5), journal=open_journal())
    await desk.start()
    await desk.candle()
    event = desk.signal_event("BUY")
    before = desk.book
    await desk.service.handlers.order_executor.on_signal(event)
    entry = desk.orders(Leg.ENTRY)[0]
    journal = open_journal()
    book = await journal.load(ACCOUNT)
    repeated = replace(
        wallet_step(book, 5),
        orders=(replace(entry, created_step=book.step + 1),),
        book=replace(book, step=book.step + 1),
    )

    with pytest.raises(InvalidInputError, match="exists already"):
        await journal.commit(repeated)

    assert before.step < book.step
    assert await open_journal().load(ACCOUNT) == book


async def test_who_was_overtaken_cannot_write(open_journal: OpenJournal) -> None:
    old = open_journal()
    book = await old.load(ACCOUNT)
    new = open_journal()
    await new.load(ACCOUNT)

    assert await old.commit(wallet_step(book)) is Commit.FENCED

    assert await new.commit(wallet_step(book)) is Commit.STORED
    assert await old.commit(wallet_step(book, 1)) is Commit.FENCED
    assert (await open_journal().load(ACCOUNT)).cash.wallet == 10_000


async def test_a_step_that_is_not_the_next_one_is_refused(open_journal: OpenJournal) -> None:
    journal = open_journal()
    book = await journal.load(ACCOUNT)

    assert await journal.commit(wallet_step(replace(book, step=5))) is Commit.FENCED


async def test_events_wait_in_order_and_unchanged_until_they_are_published(open_journal: OpenJournal) -> None:
    journal = open_journal()
    book = await journal.load(ACCOUNT)
    first = refused_signal(book)
    await journal.commit(first)
    second = wallet_step(first.book)
    await journal.commit(second)
    expected = [*first.facts, *second.facts]

    waiting = await journal.unpublished(100)
    assert [stored.fact for stored in waiting] == expected
    assert [stored.position for stored in waiting] == sorted(stored.position for stored in waiting)
    assert [stored.fact for stored in await journal.unpublished(2)] == expected[:2]
    await journal.mark_published([waiting[0].position])

    assert [stored.fact for stored in await _waiting(open_journal)] == expected[1:]


async def test_accounts_do_not_see_each_other(open_journal: OpenJournal) -> None:
    journal, other = open_journal(), open_journal()
    step = refused_signal(await journal.load(ACCOUNT))
    await journal.commit(step)

    elsewhere = await other.load("paper:other")

    assert elsewhere == Book("paper:other")
    assert await other.unpublished(10) == ()
    assert await other.commit(refused_signal(elsewhere)) is Commit.STORED
    assert await journal.commit(wallet_step(step.book)) is Commit.STORED


async def test_the_reading_point_of_trades_is_kept(open_journal: OpenJournal) -> None:
    journal = open_journal()
    step = decide(await journal.load(ACCOUNT), FillsConfirmed(BTC, 7), CONTEXT)
    assert step is not None
    await journal.commit(step)
    later = decide(step.book, FillsConfirmed(BTC, 41), CONTEXT)
    assert later is not None
    await journal.commit(later)

    loaded = await open_journal().load(ACCOUNT)

    assert (loaded.trades[BTC].base, loaded.trades[BTC].confirmed) == (7, 41)
    assert loaded == later.book


async def test_candles_are_kept_as_long_as_the_history_keeps_them(open_journal: OpenJournal) -> None:
    journal = ReloadingJournal(open_journal)
    book = wallet_step(await journal.load(ACCOUNT)).book
    await journal.commit(wallet_step(Book(ACCOUNT)))
    for timeframe, first, count in (("1m", 0, HISTORY_CANDLES), ("1m", HISTORY_CANDLES - 3, 8), ("5m", 1000, 2)):
        rows = tuple((60_000 * (first + number), 1.1, 1.3, 0.7, 1.2 + number, 5.5) for number in range(count))
        step = decide(book, HistoryObserved(BTC, timeframe, rows, START), CONTEXT)
        assert step is not None
        assert await journal.commit(step) is Commit.STORED  # compares what it loads again
        book = step.book

    assert len(book.history[BTC].candles) == 2


async def test_a_server_that_is_away_leaves_the_outcome_open(database_url: str) -> None:
    await migrate(database_url, "exec_risk", Path(migrations.__path__[0]), clock=SystemClock())
    pool = PostgresPool(database_url, clock=SystemClock(), max_size=1)
    await pool.start()
    journal = PostgresJournal(pool)
    book = await journal.load(ACCOUNT)
    await pool.stop()

    with pytest.raises(ConnectionLostError):
        await journal.commit(wallet_step(book))
    with pytest.raises(ConnectionLostError):
        await journal.unpublished(1)


async def _waiting(open_journal: OpenJournal) -> tuple[StoredFact, ...]:
    journal = open_journal()
    await journal.load(ACCOUNT)
    return await journal.unpublished(1000)
