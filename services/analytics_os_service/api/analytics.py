"""``/api/v1/analytics``: the portfolio, its trades, the archive and the services, for people and dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import AwareDatetime, Field

from services.analytics_os_service.api.routes import NOT_AVAILABLE, WRONG_PARAMETER, Answer, OneLineRoute
from services.analytics_os_service.domain.archived_event import ArchivedEvent, Cursor, EventQuery
from services.analytics_os_service.domain.heartbeats import ServiceState
from services.analytics_os_service.domain.portfolio import Account, Trade
from services.analytics_os_service.handlers.health_monitor import HealthMonitor, worst
from services.analytics_os_service.handlers.portfolio_keeper import PortfolioKeeper
from services.analytics_os_service.ports import EventArchive
from shared.errors import DecodeError, InvalidInputError, NotRunningError, TransientError
from shared.events.registry import spec_for
from shared.trading.instruments import venue_symbol

Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
SymbolParameter = Annotated[str | None, Query(description="Only this market: BTCUSDT or BTC/USDT:USDT.")]


class AccountAnswer(Answer):
    """The account when exec-risk last told it; USDT, ``_pct`` in percent."""

    wallet_balance_usd: float
    equity_usd: float
    available_usd: float
    unrealized_pnl_usd: float
    peak_equity_usd: float
    drawdown_pct: float
    gross_exposure_usd: float
    net_exposure_usd: float
    told_at: datetime = Field(description="Wall time.")


class SummaryAnswer(Answer):
    """The portfolio in a few numbers, USDT."""

    open_positions: int
    closed_trades: int
    wins: int
    losses: int
    win_rate: float | None = Field(description="Wins per closed trade, 0 to 1; null while there is none.")
    realised_pnl_usd: float = Field(description="Of closed trades, before fees and funding.")
    fees_usd: float = Field(description="Of closed trades.")
    funding_usd: float = Field(description="Of closed trades; below 0 when paid.")
    executions: Mapping[str, int] = Field(description="Execution results by status.")
    account: AccountAnswer | None = Field(description="Null before exec-risk told it.")


class PositionAnswer(Answer):
    """One open position; prices and amounts in USDT."""

    position_id: str
    symbol: str
    side: str = Field(description="LONG or SHORT.")
    entry_price: float
    size_usd: float = Field(description="Entry value.")
    leverage: float
    opened_at: datetime = Field(description="Market time.")
    trace_id: str = Field(description="Leads back to the candle behind it.")
    mark_price: float | None
    unrealized_pnl_usd: float | None
    unrealized_pnl_pct: float | None
    stop_loss_price: float | None
    take_profit_price: float | None


class TradeAnswer(Answer):
    """One closed position; prices and amounts in USDT, times in market time."""

    position_id: str
    symbol: str
    side: str = Field(description="LONG or SHORT.")
    entry_price: float
    exit_price: float
    size_usd: float = Field(description="Entry value.")
    leverage: float
    pnl_usd: float = Field(description="After fees and funding.")
    pnl_pct: float = Field(description="After fees and funding, percent of the entry value.")
    fees_usd: float
    funding_usd: float
    exit_reason: str
    entry_model: str | None = Field(description="Model behind the signal that opened it.")
    entry_confidence: float | None = Field(description="Confidence of that signal, 0 to 1.")
    duration_seconds: float
    opened_at: datetime
    closed_at: datetime
    trace_id: str


class PositionsAnswer(Answer):
    """All open positions, oldest first."""

    positions: tuple[PositionAnswer, ...]


class TradesAnswer(Answer):
    """Closed trades, the last closed first."""

    trades: tuple[TradeAnswer, ...]
    total: int = Field(description="How many there are, shown or not.")


class EventAnswer(Answer):
    """One archived event."""

    event_id: str
    event_type: str
    trace_id: str
    causation_id: str | None
    timestamp: datetime = Field(description="Wall time of the publish.")
    source: str
    version: str
    sequence: int
    symbol: str | None
    payload: Mapping[str, Any]


class EventsAnswer(Answer):
    """One page of the archive."""

    events: tuple[EventAnswer, ...]
    next_cursor: str | None = Field(description="Send it as ``cursor`` for the next page; null on the last.")


class ServiceAnswer(Answer):
    """What the last heartbeat of a service said."""

    service: str
    status: str = Field(description="HEALTHY, DEGRADED, CRITICAL (also when silent) or UNKNOWN.")
    last_heartbeat_age_seconds: float | None
    uptime_seconds: float | None
    cpu_percent: float | None
    memory_percent: float | None
    memory_used_mb: float | None
    market_data_age_seconds: float | None


class ServicesAnswer(Answer):
    """All services, and the worst of their states."""

    status: str
    services: tuple[ServiceAnswer, ...]


def analytics_router(*, archive: EventArchive, portfolio: PortfolioKeeper, monitor: HealthMonitor) -> APIRouter:
    """Return the routes over the three parts that know the answers."""
    router = APIRouter(prefix="/api/v1/analytics", tags=["analytics"], route_class=OneLineRoute)

    @router.get("/summary")
    async def read_summary() -> SummaryAnswer:
        """The portfolio in a few numbers."""
        summary = portfolio.portfolio.summary()
        return SummaryAnswer(
            open_positions=summary.open_positions,
            closed_trades=summary.closed_trades,
            wins=summary.wins,
            losses=summary.losses,
            win_rate=summary.win_rate,
            realised_pnl_usd=float(summary.realised_pnl_usd),
            fees_usd=float(summary.fees_usd),
            funding_usd=float(summary.funding_usd),
            executions=summary.executions,
            account=_account(summary.account),
        )

    @router.get("/positions")
    async def read_positions(symbol: SymbolParameter = None) -> PositionsAnswer:
        """Open positions."""
        wanted = _wanted_symbol(symbol)
        trades = [trade for trade in portfolio.portfolio.open_positions() if wanted in (None, trade.symbol)]
        return PositionsAnswer(positions=tuple(map(_position, trades)))

    @router.get("/trades")
    async def read_trades(symbol: SymbolParameter = None, limit: Limit = 100) -> TradesAnswer:
        """Closed trades, the last closed first."""
        wanted = _wanted_symbol(symbol)
        trades = [trade for trade in portfolio.portfolio.closed_trades() if wanted in (None, trade.symbol)]
        return TradesAnswer(trades=tuple(map(_closed_trade, trades[:limit])), total=len(trades))

    @router.get("/events")
    async def read_events(  # noqa: PLR0917 - FastAPI reads them by name
        trace_id: Annotated[str | None, Query(description="Only this trace.")] = None,
        event_type: Annotated[str | None, Query(alias="type", description="Only this type.")] = None,
        symbol: SymbolParameter = None,
        since: Annotated[AwareDatetime | None, Query(description="Not older, ISO 8601 with an offset.")] = None,
        limit: Limit = 100,
        order: Annotated[str, Query(pattern="^(asc|desc)$", description="By time: asc or desc.")] = "desc",
        cursor: Annotated[str | None, Query(description="``next_cursor`` of the page before.")] = None,
    ) -> EventsAnswer:
        """One page of archived events."""
        query = EventQuery(
            trace_id=trace_id,
            event_type=_wanted_type(event_type),
            symbol=_wanted_symbol(symbol),
            since=since,
            newest_first=order == "desc",
            after=_place(cursor),
            limit=limit + 1,  # one more tells whether there is another page
        )
        try:
            found = await archive.find(query)
        except (TransientError, NotRunningError) as error:
            raise HTTPException(NOT_AVAILABLE, f"the archive cannot be read now: {error}") from error
        page = found[:limit]
        following = Cursor.of(page[-1]).encode() if len(found) > limit else None
        return EventsAnswer(events=tuple(map(_event, page)), next_cursor=following)

    @router.get("/services")
    async def read_services() -> ServicesAnswer:
        """State of every service by its heartbeats."""
        states = monitor.states()
        return ServicesAnswer(status=worst([state.status for state in states]), services=tuple(map(_service, states)))

    return router


def _wanted_symbol(symbol: str | None) -> str | None:
    try:
        return None if symbol is None else venue_symbol(symbol.upper())
    except InvalidInputError as error:
        raise HTTPException(WRONG_PARAMETER, str(error)) from error


def _wanted_type(event_type: str | None) -> str | None:
    try:
        return None if event_type is None else spec_for(event_type).event_type
    except DecodeError as error:
        raise HTTPException(WRONG_PARAMETER, str(error)) from error


def _place(cursor: str | None) -> Cursor | None:
    try:
        return None if cursor is None else Cursor.decode(cursor)
    except InvalidInputError as error:
        raise HTTPException(WRONG_PARAMETER, str(error)) from error


def _account(account: Account | None) -> AccountAnswer | None:
    if account is None:
        return None
    return AccountAnswer(
        wallet_balance_usd=float(account.wallet_balance_usd),
        equity_usd=float(account.equity_usd),
        available_usd=float(account.available_usd),
        unrealized_pnl_usd=float(account.unrealized_pnl_usd),
        peak_equity_usd=float(account.peak_equity_usd),
        drawdown_pct=account.drawdown_pct,
        gross_exposure_usd=float(account.gross_exposure_usd),
        net_exposure_usd=float(account.net_exposure_usd),
        told_at=account.time,
    )


def _position(trade: Trade) -> PositionAnswer:
    entry, mark = trade.entry, trade.mark
    assert entry is not None
    return PositionAnswer(
        position_id=trade.position_id,
        symbol=trade.symbol,
        side=_side(is_long=entry.is_long),
        entry_price=float(entry.entry_price),
        size_usd=float(entry.size_usd),
        leverage=entry.leverage,
        opened_at=entry.time,
        trace_id=entry.trace_id,
        mark_price=float(mark.mark_price) if mark else None,
        unrealized_pnl_usd=float(mark.unrealized_pnl_usd) if mark else None,
        unrealized_pnl_pct=mark.unrealized_pnl_pct if mark else None,
        stop_loss_price=_number((mark.stop_loss_price if mark else None) or entry.stop_loss_price),
        take_profit_price=_number((mark.take_profit_price if mark else None) or entry.take_profit_price),
    )


def _closed_trade(trade: Trade) -> TradeAnswer:
    entry, end = trade.entry, trade.exit
    assert entry is not None
    assert end is not None
    return TradeAnswer(
        position_id=trade.position_id,
        symbol=trade.symbol,
        side=_side(is_long=entry.is_long),
        entry_price=float(entry.entry_price),
        exit_price=float(end.exit_price),
        size_usd=float(entry.size_usd),
        leverage=entry.leverage,
        pnl_usd=float(end.pnl_usd),
        pnl_pct=end.pnl_pct,
        fees_usd=float(end.commission_usd),
        funding_usd=float(end.funding_usd),
        exit_reason=end.reason,
        entry_model=entry.model,
        entry_confidence=entry.confidence,
        duration_seconds=end.duration_seconds,
        opened_at=entry.time,
        closed_at=end.time,
        trace_id=entry.trace_id,
    )


def _event(record: ArchivedEvent) -> EventAnswer:
    metadata = record.metadata
    return EventAnswer(
        event_id=metadata.event_id,
        event_type=metadata.event_type,
        trace_id=metadata.trace_id,
        causation_id=metadata.causation_id,
        timestamp=metadata.timestamp,
        source=metadata.source,
        version=metadata.version,
        sequence=metadata.sequence,
        symbol=record.symbol,
        payload=record.payload,
    )


def _service(state: ServiceState) -> ServiceAnswer:
    heartbeat = state.heartbeat
    return ServiceAnswer(
        service=state.service,
        status=state.status,
        last_heartbeat_age_seconds=state.age_seconds,
        uptime_seconds=heartbeat.uptime_seconds if heartbeat else None,
        cpu_percent=heartbeat.cpu_percent if heartbeat else None,
        memory_percent=heartbeat.memory_percent if heartbeat else None,
        memory_used_mb=heartbeat.memory_used_mb if heartbeat else None,
        market_data_age_seconds=heartbeat.market_data_age_seconds if heartbeat else None,
    )


def _side(*, is_long: bool) -> str:
    return "LONG" if is_long else "SHORT"


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
