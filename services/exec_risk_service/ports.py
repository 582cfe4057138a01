"""What exec-risk needs from outside: an exchange to trade on and to ask, and a journal that forgets nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from services.exec_risk_service.domain.account_terms import AccountTerms
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.closing_orders import ClosingOrder
from services.exec_risk_service.domain.lease import LeaseRecord
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.reports import CashReport, OrderReport, VenueAccount, VenueReport
from services.exec_risk_service.domain.step import Fact, Step
from shared.trading.candles import Candle
from shared.trading.instruments import Instrument
from shared.trading.positions import Fill

#: Every client order id of ours begins with this, so that our orders are recognised on the exchange.
OUR_PREFIX = "qt3-"


@dataclass(frozen=True, slots=True)
class OrderRef:
    """Names one order on the exchange, by our id or by the exchange's.

    Attributes:
        symbol: Venue symbol.
        client_order_id: Our id; empty to use the other one.
        exchange_order_id: The exchange's id of a regular order.
        is_algo: The order was sent as a conditional one.
    """

    symbol: str
    client_order_id: str = ""
    exchange_order_id: str = ""
    is_algo: bool = False


def ref_of(order: Order) -> OrderRef:
    """Return the name of one of our orders."""
    return OrderRef(order.symbol, order.client_order_id, is_algo=order.order_type.is_algo)


class OrderGateway(Protocol):
    """Requests that change something; none of them is ever repeated by the gateway.

    Each raises ``OrderRejectedError`` (nothing was done), ``ConnectionLostError`` (the request was never sent), or
    ``OutcomeUnknownError`` (no one knows).
    """

    async def submit(self, order: Order) -> OrderReport:
        """Send one order under its client order id."""
        ...

    async def cancel(self, ref: OrderRef) -> OrderReport:
        """Cancel one resting order."""
        ...

    async def set_leverage(self, symbol: str, leverage: int) -> None:
        """Set the leverage of a symbol; setting what is set already is no error."""
        ...

    async def find_order(self, ref: OrderRef) -> OrderReport | None:
        """Look one order up among regular and conditional orders; None when neither list has it.

        Raises:
            TransientError: The exchange could not be asked: nothing is known.
        """
        ...


class DeadMansSwitch(Protocol):
    """Lets the exchange cancel orders by itself when nobody refreshes the countdown."""

    async def count_down(self, symbol: str, seconds: float) -> None:
        """Cancel the regular orders of ``symbol`` after ``seconds``, unless this is called again; 0 ends it.

        Raises:
            ExchangeError: The exchange refused, or no one knows.
            TransientError: It was not sent.
        """
        ...


class AccountView(Protocol):
    """Reads that show the account. Each raises ``TransientError`` when the exchange cannot be asked."""

    async def account(self) -> VenueAccount:
        """Return wallet balance and positions."""
        ...

    async def open_orders(self) -> tuple[OrderReport, ...]:
        """Return every resting order of the account, regular and conditional."""
        ...

    async def fills_after(self, symbol: str, trade_id: int | None) -> tuple[Fill, ...]:
        """Return the trades of ``symbol`` with a higher id, oldest first; with None the newest ones."""
        ...

    async def payments_since(self, moment: datetime) -> tuple[CashReport, ...]:
        """Return funding and transfers since ``moment`` of market time, oldest first."""
        ...


class MarketView(Protocol):
    """What the market is like right now."""

    async def quote(self, symbol: str) -> Quote:
        """Return the best prices of ``symbol`` and the depth behind them.

        Raises:
            TransientError: The exchange could not be asked.
            InvalidInputError: The book is empty or cannot be read.
        """
        ...


class TradingTerms(Protocol):
    """What trading on this account is like."""

    async def instruments(self) -> Mapping[str, Instrument]:
        """Return the filters of every listed perpetual by venue symbol."""
        ...

    async def account_terms(self) -> AccountTerms:
        """Return the modes of the account and the permissions of its key."""
        ...


class CandleHistory(Protocol):
    """Past candles."""

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> Sequence[Candle]:
        """Return the closed candles with ``start <= open_time < end``, oldest first, at most 1000.

        Raises:
            TransientError: The exchange cannot be asked.
        """
        ...


class ReportStream(Protocol):
    """The user stream of the exchange."""

    name: str

    async def start(self) -> None:
        """Connect; from here on every report is kept until it is read."""
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...

    def reports(self) -> AsyncIterator[VenueReport]:
        """Yield reports in the order in which they came; ``Reconnected`` after each gap."""
        ...


class StreamLink(Protocol):
    """The connection behind a ``ReportStream``; times are of the monotonic clock.

    Attributes:
        connection: Number of the newest connection: 1, 2, ...; 0 before the first.
        is_connected: It stands, which does not mean that it says anything.
        lost_at: When it was lost last.
        heard_at: When it said anything last; 0 before the first time.
    """

    @property
    def connection(self) -> int: ...

    @property
    def is_connected(self) -> bool: ...

    @property
    def lost_at(self) -> float: ...

    @property
    def heard_at(self) -> float: ...

    def renew(self, why: str) -> None:
        """Give the connection up and make another one with a new listen key."""
        ...


class Commit(StrEnum):
    """What became of a step."""

    STORED = "STORED"
    DUPLICATE = "DUPLICATE"  # its cause or its fill was stored before: nothing was written
    FENCED = "FENCED"  # another process has taken the account over: nothing was written, nothing may be sent


@dataclass(frozen=True, slots=True)
class StoredFact:
    """An event that waits for its publication; ``position`` gives the order."""

    position: int
    fact: Fact


def taken_over(account: str) -> str:
    """Return the one line that says why this process may not act on ``account`` any more."""
    return f"account {account} was taken over by another exec-risk-service; stop one of the two"


class LeaseStore(Protocol):
    """Who may act on an account. Each call raises ``ConnectionLostError`` when the store cannot be reached."""

    async def read(self, account: str) -> LeaseRecord:
        """Return who holds the account."""
        ...

    async def take(self, account: str, holder: str, *, seen_version: int, seconds: float) -> int | None:
        """Give the account to ``holder`` and fence off who had it, unless the lease changed since it was seen.

        Returns:
            The new epoch, or None when somebody was faster.
        """
        ...

    async def renew(self, account: str, holder: str, *, seconds: float) -> bool:
        """Let the lease of ``holder`` last from now on; False when it is no longer theirs."""
        ...

    async def release(self, account: str, holder: str) -> None:
        """Let the next one take the account at once; nothing when it is no longer theirs."""
        ...


@dataclass(frozen=True, slots=True)
class LatchedStop:
    """An emergency stop as the latch file holds it.

    Attributes:
        stop_id: Names it.
        reason: Why.
        requested_by: Person, program, or ``file``.
        since: Wall time.
    """

    stop_id: str
    reason: str
    requested_by: str
    since: datetime


class StopLatch(Protocol):
    """Holds an emergency stop on this machine, whatever else is away.

    Each change raises ``ConnectionLostError`` when the disk does not take it.
    """

    async def read(self) -> LatchedStop | None:
        """Return the stop that is latched; what cannot be read counts as one."""
        ...

    async def write(self, stop: LatchedStop) -> None:
        """Latch ``stop``; it outlives the machine's next moment when this returns."""
        ...

    async def clear(self) -> None:
        """Let go; nothing when nothing is latched."""
        ...


class StopJournal(Protocol):
    """What the emergency stop sends, written down before it is sent. Each raises ``ConnectionLostError``."""

    async def add(self, order: ClosingOrder) -> None:
        """Write one order down; it is on the disk when this returns."""
        ...

    async def mark_told(self, client_order_id: str) -> None:
        """Note that the account's own journal knows the order."""
        ...

    async def orders(self, *, untold_only: bool = False) -> tuple[ClosingOrder, ...]:
        """Return the orders, oldest first."""
        ...

    async def close(self) -> None:
        """Let go of the file."""
        ...


class OrderJournal(Protocol):
    """The durable record of one account: what is not in it did not happen."""

    async def load(self, account: str) -> Book:
        """Take the account over and return its book; whoever had it before is fenced off.

        Raises:
            FencedError: The lease of the account is another's.
        """
        ...

    async def commit(self, step: Step) -> Commit:
        """Store one step as a whole or not at all.

        Raises:
            InvalidInputError: An intent of the step exists already.
            ConnectionLostError: No one knows whether it was stored: load again before the next step.
        """
        ...

    async def unpublished(self, limit: int) -> tuple[StoredFact, ...]:
        """Return the oldest events that were not published yet."""
        ...

    async def mark_published(self, positions: Collection[int]) -> None:
        """Drop events that are on the bus."""
        ...
