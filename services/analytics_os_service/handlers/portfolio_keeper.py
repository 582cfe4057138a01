"""Keeps the portfolio folded from facts, and answers for it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog
from pydantic import ValidationError

from services.analytics_os_service.domain.archived_event import ArchivedEvent, restored
from services.analytics_os_service.domain.portfolio import Portfolio, Trade
from services.analytics_os_service.ports import EventArchive
from shared.errors import DecodeError
from shared.events.envelope import Event
from shared.rpc.commands import GetPortfolioStateRequest, GetPortfolioStateResult, Position
from shared.trading.orders import Side

log = structlog.get_logger(__name__)


class PortfolioKeeper:
    """Component and handler: after its start it knows what the archive knows, and from then on what the bus tells.

    Attributes:
        name: Component name.
        portfolio: The portfolio at this moment.
    """

    name = "portfolio"

    def __init__(self, *, run_id: str, archive: EventArchive) -> None:
        self._run_id = run_id
        self._archive = archive
        self.portfolio = Portfolio()

    async def start(self) -> None:
        """Fold the archive; must come before the bus."""
        records = await self._archive.portfolio_facts()
        self.portfolio = Portfolio(fact for record in records if (fact := _readable(record)) is not None)
        log.info("portfolio_restored", facts=len(records), open_positions=len(self.portfolio.open_positions()))

    async def stop(self) -> None:
        """Nothing to release."""

    async def on_fact(self, event: Event[Any]) -> None:
        """Take in one fact."""
        self.portfolio.apply(event)

    async def get_portfolio_state(self, _request: GetPortfolioStateRequest) -> GetPortfolioStateResult:
        """Answer the RPC of that name."""
        summary, open_trades = self.portfolio.summary(), self.portfolio.open_positions()
        account = summary.account
        return GetPortfolioStateResult(
            run_id=self._run_id,
            timestamp=_newest([*open_trades, *self.portfolio.closed_trades()]),
            wallet_balance_usd=float(account.wallet_balance_usd) if account else None,
            equity_usd=float(account.equity_usd) if account else None,
            available_usd=float(account.available_usd) if account else None,
            realized_pnl_usd=float(summary.realised_pnl_usd),
            unrealized_pnl_usd=float(account.unrealized_pnl_usd) if account else 0.0,
            fees_usd=float(summary.fees_usd),
            funding_usd=float(summary.funding_usd),
            gross_exposure_usd=float(account.gross_exposure_usd) if account else 0.0,
            net_exposure_usd=float(account.net_exposure_usd) if account else 0.0,
            drawdown_pct=account.drawdown_pct if account else None,
            trades_closed=summary.closed_trades,
            trades_won=summary.wins,
            positions=tuple(sorted((_position(trade) for trade in open_trades), key=lambda open_: open_.symbol)),
        )


def _readable(record: ArchivedEvent) -> Event[Any] | None:
    """Return the archived fact; None, with a line in the log, for one that today's schema cannot read."""
    try:
        return restored(record)
    except (DecodeError, ValidationError) as error:
        log.warning("archived_fact_unreadable", event_id=record.metadata.event_id, error=str(error).splitlines()[0])
        return None


def _position(trade: Trade) -> Position:
    entry, mark = trade.entry, trade.mark
    assert entry is not None
    return Position(
        position_id=trade.position_id,
        symbol=trade.symbol,
        side=Side.BUY if entry.is_long else Side.SELL,
        quantity=float(entry.size_usd / entry.entry_price),
        entry_price=float(entry.entry_price),
        mark_price=float(mark.mark_price) if mark else None,
        unrealized_pnl_usd=float(mark.unrealized_pnl_usd) if mark else None,
        leverage=entry.leverage,
        stop_loss_price=_number((mark.stop_loss_price if mark else None) or entry.stop_loss_price),
        take_profit_price=_number((mark.take_profit_price if mark else None) or entry.take_profit_price),
        opened_at=entry.time,
    )


def _newest(trades: list[Trade]) -> datetime | None:
    moments = [part.time for trade in trades for part in (trade.entry, trade.exit) if part is not None]
    return max(moments, default=None)


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
