"""The process ends at chosen moments, with the journal in PostgreSQL: what was committed is all that is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from services.exec_risk_service.adapters import migrations
from services.exec_risk_service.adapters.postgres_journal import PostgresJournal
from shared.clock import ManualClock, SystemClock
from shared.postgres.migrate import migrate
from shared.postgres.pool import PostgresPool
from tests.support.crashes import Crash, CrashClock, CrashingJournal, CrashingVenue
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk
from tests.support.markets import START, Prices, WrittenSource, flat

PRICES: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 30)]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[PostgresPool]:
    await migrate(database_url, "exec_risk", Path(migrations.__path__[0]), clock=SystemClock())
    opened = PostgresPool(database_url, clock=SystemClock(), max_size=2)
    await opened.start()
    yield opened
    await opened.stop()


@pytest.mark.parametrize(
    "moment",
    [
        "after commit 4",  # the intent is stored, nothing was sent
        "after commit 5",  # marked as sent, not sent
        "before entry is sent",
        "after entry was sent",  # executed, and nobody noted it
        "before commit 7",  # the fill was told, not stored
        "after commit 7",  # filled and stored, naked
        "after stop was sent",
        "after publish",  # on the bus, still in the outbox
    ],
)
async def test_the_next_process_brings_everything_to_a_good_end(pool: PostgresPool, moment: str) -> None:
    crashes = CrashClock()
    engine = MatchingEngine(WrittenSource(PRICES, volume=100_000.0), start=START, wallet=Decimal(10_000))
    venue = CrashingVenue(engine)
    venue.crashes = crashes
    journal = CrashingJournal(PostgresJournal(pool), crashes)
    desk = Desk(venue, journal, None, market_clock=ManualClock(START))
    await desk.start()
    await desk.candle()
    crashes.at_name = moment

    with pytest.raises(Crash):
        await desk.signal("BUY")
    crashes.at_name, crashes.is_dead = None, False
    await desk.restart(journal=PostgresJournal(pool))
    for _ in range(45):
        await desk.tick(1.0)

    assert_sound(desk)
    assert await pool.pool.fetchval("SELECT count(*) FROM exec_risk.outbox") == 0
    booked = await pool.pool.fetchval("SELECT count(*) FROM exec_risk.fill")
    assert booked == len(engine.fills("BTCUSDT"))
    await desk.advance(5)
    assert_sound(desk)


@pytest.mark.parametrize("number", [5, 12, 19, 26, 33])
async def test_a_twap_is_resumed_from_what_was_committed(pool: PostgresPool, number: int) -> None:
    crashes = CrashClock()
    engine = MatchingEngine(WrittenSource(flat(50_000, 20), volume=100_000.0), start=START, wallet=Decimal(10_000))
    venue = CrashingVenue(engine)
    venue.crashes = crashes
    desk = Desk(venue, CrashingJournal(PostgresJournal(pool), crashes), None, market_clock=ManualClock(START))
    await desk.start()
    await desk.candle()
    crashes.at = len(crashes.moments) + number

    with pytest.raises(Crash):
        await _buy_over_time(desk)
    crashes.at, crashes.is_dead = None, False
    await desk.restart(journal=PostgresJournal(pool))
    (resumed,) = desk.book.executions.values()
    assert resumed.schedule
    await _let_slices_fall_due(desk)
    await desk.tick(2.0)

    assert_sound(desk)
    row = await pool.pool.fetchrow("SELECT * FROM exec_risk.execution")
    assert (row["done"], row["quantity"], row["filled_quantity"]) == (True, Decimal("0.019"), Decimal("0.019"))
    assert await pool.pool.fetchval("SELECT sum(quantity) FROM exec_risk.fill") == Decimal("0.019")


async def _buy_over_time(desk: Desk) -> None:
    await desk.ask("BUY", position_size_usd=990.0, execution_strategy="TWAP", urgency="HIGH")
    await _let_slices_fall_due(desk)


async def _let_slices_fall_due(desk: Desk) -> None:
    for _ in range(20):
        await desk.advance(5 / 60)
        await desk.tick(0.0)
