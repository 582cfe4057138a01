"""``/api/v1/analytics`` over a portfolio and an archive in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI

from services.analytics_os_service.adapters.memory_archive import MemoryArchive
from services.analytics_os_service.api import analytics_router
from services.analytics_os_service.app import AnalyticsOs, assemble
from services.analytics_os_service.domain.archived_event import ArchivedEvent, EventQuery
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.events.v3 import PositionClosedPayload
from shared.ids import SeededIds
from shared.policy.memory_store import MemoryPolicyStore
from tests.support.event_payloads import START, position_opened

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class AbsentArchive(MemoryArchive):
    """An archive whose server is away."""

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        raise ConnectionLostError("PostgreSQL cannot be reached")

    async def portfolio_facts(self) -> Sequence[ArchivedEvent]:
        return []


def closed(symbol: str, pnl: float) -> PositionClosedPayload:
    return PositionClosedPayload(
        symbol=symbol,
        position_id=f"position-{symbol}",
        entry_price=100.0,
        exit_price=110.0,
        size_usd=100.0,
        leverage=1.0,
        is_long=True,
        pnl_usd=pnl,
        pnl_pct=pnl,
        duration_seconds=60.0,
        exit_reason="TAKE_PROFIT",
        entry_timestamp=START,
        exit_timestamp=NOON,
        commission_usd=0.1,
        funding_usd=0.0,
    )


class Stage:
    def __init__(self, archive: MemoryArchive) -> None:
        clock = ManualClock(NOON)
        self.broker = MemoryBroker()
        self.bus = MemoryBus(
            self.broker,
            service="analytics-os-service",
            instance="one",
            clock=clock,
            ids=SeededIds(1),
            market_clock=clock,
        )
        self.parts: AnalyticsOs = assemble(
            run_id="run", bus=self.bus, rpc=None, archive=archive, policy=MemoryPolicyStore(clock), clock=clock
        )
        app = FastAPI()
        app.include_router(
            analytics_router(archive=archive, portfolio=self.parts.portfolio, monitor=self.parts.monitor)
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://analytics/api/v1/analytics")

    async def get(self, path: str) -> object:
        return (await self.http.get(path)).raise_for_status().json()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage(MemoryArchive())
    await stage.bus.start()
    yield stage
    await stage.bus.stop()
    await stage.http.aclose()


async def test_trades_tell_both_ends_and_what_is_left(stage: Stage) -> None:
    opened = await stage.bus.publish("position.opened", position_opened())
    await stage.bus.publish("position.closed", closed("BTCUSDT", 9.9))
    await stage.bus.publish("position.opened", position_opened("ETHUSDT"))
    await stage.broker.settled()

    answer = await stage.get("/trades")
    assert isinstance(answer, dict)
    (trade,) = answer["trades"]
    told = {
        "position_id": "position-BTCUSDT",
        "symbol": "BTCUSDT",
        "side": "LONG",
        "entry_price": 100.0,
        "exit_price": 110.0,
        "size_usd": 100.0,
        "pnl_usd": 9.9,
        "fees_usd": 0.1,
        "exit_reason": "TAKE_PROFIT",
        "opened_at": "2026-01-01T00:00:00Z",
        "closed_at": "2026-01-01T12:00:00Z",
        "trace_id": opened.metadata.trace_id,
    }
    assert told.items() <= trade.items()
    assert await stage.get("/trades?symbol=ETHUSDT") == {"trades": [], "total": 0}


async def test_an_empty_system_has_answers_too(stage: Stage) -> None:
    summary = await stage.get("/summary")

    assert isinstance(summary, dict)
    assert (summary["open_positions"], summary["win_rate"], summary["account"]) == (0, None, None)
    assert await stage.get("/positions") == {"positions": []}
    assert await stage.get("/events") == {"events": [], "next_cursor": None}
    services = await stage.get("/services")
    assert isinstance(services, dict)
    assert services["status"] == "UNKNOWN"


async def test_while_the_archive_is_away_its_questions_get_503_and_the_others_answers() -> None:
    stage = Stage(AbsentArchive())

    assert (await stage.http.get("/events")).status_code == 503
    assert (await stage.http.get("/summary")).status_code == 200
    await stage.http.aclose()
