"""The report of a run, read from a real PostgreSQL and Redis, against the books of the real matching engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infrastructure.supervisor.run_report import RunReport, ServiceRecord, run_report
from services.analytics_os_service.adapters import migrations as analytics_migrations
from services.analytics_os_service.adapters.postgres_archive import PostgresArchive
from services.analytics_os_service.domain.archived_event import archived
from services.exec_risk_service.adapters import migrations as exec_risk_migrations
from services.exec_risk_service.adapters.postgres_journal import PostgresJournal
from shared.clock import SystemClock
from shared.errors import QuantumTraderError
from shared.events.envelope import Event
from shared.events.streams import dead_letter_stream
from shared.postgres.migrate import migrate
from shared.postgres.pool import PostgresPool
from shared.redis_connection import RedisConnection
from tests.support.exec_risk_desk import Desk, desk_on
from tests.support.markets import BTC, Prices, flat
from tests.support.run_books import books_json

#: Falls through the stop of the first position, then rests.
FALL: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 10)]
#: The desk trades for the account ``paper:test``.
RUN = "test"
SERVICES = {"ai-service": ServiceRecord("STOPPED", 0), "exec-risk-service": ServiceRecord("READY", 1)}


@dataclass
class Stage:
    """The two servers of a run."""

    postgres: PostgresPool
    redis: RedisConnection
    archive: PostgresArchive

    async def report(self, desk: Desk) -> RunReport:
        return await run_report(
            run_id=RUN,
            postgres=self.postgres,
            redis=self.redis,
            exchange_books=books_json(desk.venue.engine),
            services=SERVICES,
        )

    async def trade(self, desk: Desk, action: str) -> str:
        """Let a candle lead to a signal, archive both, and return their trace."""
        candle = desk.candle_event()
        signal = desk.signal_event(action)
        trace = signal.metadata.trace_id
        candle = Event(replace(candle.metadata, trace_id=trace), candle.payload)
        signal = Event(replace(signal.metadata, causation_id=candle.metadata.event_id), signal.payload)
        for event in (candle, signal):
            await self.archive.append(archived(event))
        await desk.service.handlers.order_executor.on_signal(signal)
        await desk.settle()
        return trace


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    clock = SystemClock()
    await migrate(database_url, "exec_risk", Path(exec_risk_migrations.__path__[0]), clock=clock)
    await migrate(database_url, "analytics", Path(analytics_migrations.__path__[0]), clock=clock)
    pool, redis = PostgresPool(database_url, clock=clock, max_size=3), RedisConnection(redis_url, clock=clock)
    await pool.start()
    await redis.start()
    yield Stage(pool, redis, PostgresArchive(pool, run_id=RUN))
    await redis.stop()
    await pool.stop()


async def traded(stage: Stage) -> tuple[Desk, str, str]:
    """Return a desk with a position that was stopped out and one that is open, and the traces of the two."""
    desk = desk_on(FALL, journal=PostgresJournal(stage.postgres))
    await desk.start()
    await desk.candle()
    ended = await stage.trade(desk, "BUY")
    await desk.advance(4)
    await desk.candle()
    is_open = await stage.trade(desk, "SELL")
    for event in desk.bus.events:
        await stage.archive.append(archived(event))
    return desk, ended, is_open


async def test_a_healthy_run_in_numbers(stage: Stage) -> None:
    desk, ended, _ = await traded(stage)

    report = await stage.report(desk)

    assert report.invariants.hold, report.complaints
    assert report.is_good
    shown = report.as_json()
    cash, engine = desk.book.cash, desk.venue.engine
    assert shown == {
        "candles": 2,
        "predictions": 0,
        "signals": 2,
        "intents": len(desk.book.orders),
        "orders_accepted": len(desk.book.orders),
        "fills": 3,
        "positions_opened": 2,
        "positions_closed": 1,
        "realised_pnl_usd": float(cash.realized_pnl),
        "fees_usd": float(cash.commission),
        "funding_usd": 0.0,
        "equity_usd": float(engine.account().margin_balance),
        "dead_letters": 0,
        "trace_example": ended,
        "invariants": {"fills_sum_to_positions": True, "one_order_per_intent": True, "wallet_reconciles": True},
        "services": {
            "ai-service": {"status": "STOPPED", "restarts": 0},
            "exec-risk-service": {"status": "READY", "restarts": 1},
        },
    }
    assert shown["realised_pnl_usd"] < 0 < shown["fees_usd"]


async def test_one_fill_deleted_from_the_exchanges_book_makes_every_invariant_false(stage: Stage) -> None:
    desk, _, _ = await traded(stage)
    engine = desk.venue.engine
    assert engine.remove_fill(BTC, engine.fills(BTC)[0].fill.trade_id)

    report = await stage.report(desk)

    assert not report.is_good
    assert not any(report.as_json()["invariants"].values())
    assert len(report.complaints) == 3


async def test_dead_letters_of_any_service_are_counted_and_spoil_the_run(stage: Stage) -> None:
    desk, _, _ = await traded(stage)
    redis: Any = stage.redis.client
    for service in ("ai-service", "exec-risk-service", "analytics-os-service"):
        await redis.xadd(dead_letter_stream(service), {"error": "x"})

    report = await stage.report(desk)

    assert (report.dead_letters, report.is_good) == (3, False)
    assert "3 events" in report.complaints[0]


async def test_an_example_whose_tree_has_a_gap_comes_after_a_whole_one(stage: Stage) -> None:
    desk, ended, is_open = await traded(stage)
    await stage.postgres.pool.execute(
        "DELETE FROM analytics.events WHERE trace_id = $1 AND event_type = 'signal.generated'", ended
    )

    assert (await stage.report(desk)).trace_example == is_open


async def test_a_run_without_trades_has_no_example_and_other_runs_are_not_counted(stage: Stage) -> None:
    await traded(stage)

    report = await run_report(
        run_id="other",
        postgres=stage.postgres,
        redis=stage.redis,
        exchange_books=books_json(desk_on(FALL).venue.engine),
        services={},
    )

    assert (report.candles, report.intents, report.trace_example) == (0, 0, None)
    assert not report.invariants.wallet_reconciles.holds  # no service ever saw the account


async def test_what_is_no_book_is_said_in_one_line(stage: Stage) -> None:
    with pytest.raises(QuantumTraderError, match="books cannot be read: KeyError"):
        await run_report(run_id=RUN, postgres=stage.postgres, redis=stage.redis, exchange_books={}, services={})


async def test_missing_tables_are_said_in_one_line(stage: Stage) -> None:
    await stage.postgres.pool.execute("DROP TABLE analytics.events")

    with pytest.raises(QuantumTraderError, match="never made its tables"):
        await stage.report(desk_on(FALL))
