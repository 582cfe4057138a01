"""The portfolio as a fold over facts: in any order, any number of times, the same facts give the same portfolio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from shared.events.envelope import Event, EventMetadata
from shared.events.v3 import (
    AccountUpdatedPayload,
    ExecutionResultPayload,
    PositionClosedPayload,
    PositionOpenedPayload,
    PositionUpdatedPayload,
)
from shared.trading.money import ZERO, to_decimal

#: The facts that change the portfolio.
PORTFOLIO_FACTS = ("account.updated", "position.opened", "position.updated", "position.closed", "execution.result")


@dataclass(frozen=True, slots=True)
class Entry:
    """How a position began. Amounts in USDT; ``trace_id`` leads back to the candle."""

    entry_price: Decimal
    size_usd: Decimal
    leverage: float
    is_long: bool
    time: datetime
    trace_id: str
    confidence: float | None = None
    model: str | None = None
    stop_loss_price: Decimal | None = None
    take_profit_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """What an open position was worth when it was last looked at. Amounts in USDT, ``_pct`` in percent."""

    mark_price: Decimal
    size_usd: Decimal
    unrealized_pnl_usd: Decimal
    unrealized_pnl_pct: float
    time: datetime
    stop_loss_price: Decimal | None = None
    take_profit_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a position ended. Amounts in USDT, ``_pct`` in percent.

    Attributes:
        pnl_usd: Profit that is left after fees and funding; likewise ``pnl_pct``.
        commission_usd: Fees paid; below 0 for rebates.
        funding_usd: Funding received; below 0 when paid.
    """

    exit_price: Decimal
    pnl_usd: Decimal
    pnl_pct: float
    commission_usd: Decimal
    funding_usd: Decimal
    reason: str
    duration_seconds: float
    time: datetime

    @property
    def realised_pnl_usd(self) -> Decimal:
        """Profit before fees and funding, USDT."""
        return self.pnl_usd + self.commission_usd - self.funding_usd


@dataclass(frozen=True, slots=True)
class Trade:
    """One position from open to close, as far as its facts have come in.

    The facts travel on different streams, so each part may be the first to arrive.
    """

    position_id: str
    symbol: str
    entry: Entry | None = None
    mark: Mark | None = None
    exit: Exit | None = None

    @property
    def is_open(self) -> bool:
        return self.entry is not None and self.exit is None


@dataclass(frozen=True, slots=True)
class Account:
    """The account when exec-risk last said so. Amounts in USDT, ``_pct`` in percent."""

    wallet_balance_usd: Decimal
    equity_usd: Decimal
    available_usd: Decimal
    unrealized_pnl_usd: Decimal
    peak_equity_usd: Decimal
    drawdown_pct: float
    gross_exposure_usd: Decimal
    net_exposure_usd: Decimal
    time: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """The portfolio in a few numbers; profit, fees and funding are those of closed trades, USDT.

    Attributes:
        wins: Closed trades with a profit after fees and funding; ``losses`` likewise.
        win_rate: Wins per closed trade, 0 to 1; None while no trade is closed.
        realised_pnl_usd: Before fees and funding.
        executions: How many execution results had each status.
    """

    open_positions: int
    closed_trades: int
    wins: int
    losses: int
    win_rate: float | None
    realised_pnl_usd: Decimal
    fees_usd: Decimal
    funding_usd: Decimal
    executions: Mapping[str, int]
    account: Account | None


class Portfolio:
    """Trades, account and execution counts; changes only by ``apply``."""

    def __init__(self, facts: Iterable[Event[Any]] = ()) -> None:
        self._trades: dict[str, Trade] = {}
        self._executions: dict[str, str] = {}
        self._account: Account | None = None
        self._account_place: tuple[datetime, int] | None = None
        for fact in facts:
            self.apply(fact)

    def apply(self, event: Event[Any]) -> None:
        """Take in one fact; events of other types change nothing."""
        match event.payload:
            case PositionOpenedPayload() as opened:
                self._take_entry(opened, event.metadata)
            case PositionUpdatedPayload() as updated:
                self._take_mark(updated, event.metadata)
            case PositionClosedPayload() as closed:
                self._take_exit(closed, event.metadata)
            case AccountUpdatedPayload() as account:
                self._take_account(account, event.metadata)
            case ExecutionResultPayload() as result:
                self._executions[event.metadata.event_id] = str(result.status)

    @property
    def account(self) -> Account | None:
        return self._account

    def open_positions(self) -> list[Trade]:
        """Return the open positions, oldest first."""
        return sorted((trade for trade in self._trades.values() if trade.is_open), key=_entry_key)

    def closed_trades(self) -> list[Trade]:
        """Return the closed trades, the last closed first."""
        return sorted((trade for trade in self._trades.values() if trade.exit), key=_exit_key, reverse=True)

    def summary(self) -> Summary:
        """Return the portfolio in a few numbers."""
        exits = [trade.exit for trade in self._trades.values() if trade.exit]
        wins = sum(1 for exit_ in exits if exit_.pnl_usd > 0)
        return Summary(
            open_positions=len(self.open_positions()),
            closed_trades=len(exits),
            wins=wins,
            losses=sum(1 for exit_ in exits if exit_.pnl_usd < 0),
            win_rate=wins / len(exits) if exits else None,
            realised_pnl_usd=sum((exit_.realised_pnl_usd for exit_ in exits), ZERO),
            fees_usd=sum((exit_.commission_usd for exit_ in exits), ZERO),
            funding_usd=sum((exit_.funding_usd for exit_ in exits), ZERO),
            executions=dict(sorted(Counter(self._executions.values()).items())),
            account=self._account,
        )

    def _trade(self, position_id: str, symbol: str) -> Trade:
        return self._trades.get(position_id) or Trade(position_id, symbol)

    def _take_entry(self, opened: PositionOpenedPayload, metadata: EventMetadata) -> None:
        entry = Entry(
            entry_price=_money(opened.entry_price),
            size_usd=_money(opened.size_usd),
            leverage=opened.leverage,
            is_long=opened.is_long,
            time=opened.entry_timestamp,
            trace_id=metadata.trace_id,
            confidence=opened.entry_confidence,
            model=opened.entry_model,
            stop_loss_price=_optional_money(opened.stop_loss_price),
            take_profit_price=_optional_money(opened.take_profit_price),
        )
        trade = self._trade(opened.position_id, opened.symbol)
        self._trades[opened.position_id] = replace(trade, entry=entry)

    def _take_mark(self, updated: PositionUpdatedPayload, metadata: EventMetadata) -> None:
        trade = self._trade(updated.position_id, updated.symbol)
        if trade.mark is not None and trade.mark.time >= metadata.timestamp:
            return
        mark = Mark(
            mark_price=_money(updated.mark_price),
            size_usd=_money(updated.size_usd),
            unrealized_pnl_usd=_money(updated.unrealized_pnl_usd),
            unrealized_pnl_pct=updated.unrealized_pnl_pct,
            time=metadata.timestamp,
            stop_loss_price=_optional_money(updated.stop_loss_price),
            take_profit_price=_optional_money(updated.take_profit_price),
        )
        self._trades[updated.position_id] = replace(trade, mark=mark)

    def _take_exit(self, closed: PositionClosedPayload, metadata: EventMetadata) -> None:
        exit_ = Exit(
            exit_price=_money(closed.exit_price),
            pnl_usd=_money(closed.pnl_usd),
            pnl_pct=closed.pnl_pct,
            commission_usd=_money(closed.commission_usd or 0.0),
            funding_usd=_money(closed.funding_usd or 0.0),
            reason=str(closed.exit_reason),
            duration_seconds=closed.duration_seconds,
            time=closed.exit_timestamp or metadata.timestamp,
        )
        trade = self._trade(closed.position_id, closed.symbol)
        # The close repeats how the position began, so a lost or late open leaves no gap.
        entry = trade.entry or Entry(
            entry_price=_money(closed.entry_price),
            size_usd=_money(closed.size_usd),
            leverage=closed.leverage,
            is_long=closed.is_long,
            time=closed.entry_timestamp or metadata.timestamp,
            trace_id=metadata.trace_id,
            confidence=closed.entry_confidence,
            model=closed.entry_model,
        )
        self._trades[closed.position_id] = replace(trade, entry=entry, exit=exit_)

    def _take_account(self, account: AccountUpdatedPayload, metadata: EventMetadata) -> None:
        place = (metadata.timestamp, metadata.sequence)
        if self._account_place is not None and place <= self._account_place:
            return
        self._account_place = place
        self._account = Account(
            wallet_balance_usd=_money(account.wallet_balance_usd),
            equity_usd=_money(account.equity_usd),
            available_usd=_money(account.available_usd),
            unrealized_pnl_usd=_money(account.unrealized_pnl_usd),
            peak_equity_usd=_money(account.peak_equity_usd),
            drawdown_pct=account.drawdown_pct,
            gross_exposure_usd=_money(account.gross_exposure_usd),
            net_exposure_usd=_money(account.net_exposure_usd),
            time=metadata.timestamp,
        )


def _entry_key(trade: Trade) -> tuple[datetime, str]:
    assert trade.entry is not None
    return trade.entry.time, trade.position_id


def _exit_key(trade: Trade) -> tuple[datetime, str]:
    assert trade.exit is not None
    return trade.exit.time, trade.position_id


def _money(value: float) -> Decimal:
    return to_decimal(value)


def _optional_money(value: float | None) -> Decimal | None:
    return None if value is None else to_decimal(value)
