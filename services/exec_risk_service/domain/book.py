"""Everything exec-risk knows about one account, as one frozen value: the result of folding its inputs in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from services.exec_risk_service.domain.account import AccountState
from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.kelly import TradeRecord
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.pace import Pace
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.price_history import PriceHistories, PriceHistory
from services.exec_risk_service.domain.slippage import SlippageMemory
from services.exec_risk_service.domain.trading_state import TradingStatus
from shared.trading.money import ZERO

#: Finished orders that stay in memory, so that a late report still finds its order.
REMEMBERED_ORDERS = 200
#: Trade ids per symbol that stay in memory to recognise a repeated fill; the journal remembers all.
REMEMBERED_TRADES = 500


@dataclass(frozen=True, slots=True)
class TradeMemory:
    """Which trades of one symbol are booked.

    Attributes:
        recent: Newest trade ids, in the order in which they were booked.
        base: Trades up to this id were there before us and are not ours.
        confirmed: Every later trade up to this id was seen in the exchange's own list.
    """

    recent: tuple[int, ...] = ()
    base: int = 0
    confirmed: int = 0

    @property
    def cursor(self) -> int:
        """Trades with a higher id are still to be read from the exchange's list."""
        return max(self.base, self.confirmed)

    @property
    def thorough_cursor(self) -> int:
        """The same, when the list may have lagged: as far back as a repeated trade would be recognised."""
        if len(self.recent) < REMEMBERED_TRADES:
            return self.base
        return max(self.base, min(self.recent) - 1)

    def with_trade(self, trade_id: int) -> TradeMemory:
        return replace(self, recent=(*self.recent, trade_id)[-REMEMBERED_TRADES:])

    def read_to(self, trade_id: int) -> TradeMemory:
        return replace(self, confirmed=max(self.confirmed, trade_id))


@dataclass(frozen=True, slots=True)
class Mark:
    """The newest price of one symbol.

    Attributes:
        price: USDT.
        at: Market time that it is from.
        seen_at: Wall time at which we heard of it.
    """

    price: Decimal
    at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Book:
    """State of one account.

    Attributes:
        account: Name of the account and its run: ``paper:live``.
        step: Number of the last applied input.
        cash: Wallet, peaks, totals.
        orders: By client order id: all that are not final, and the newest final ones.
        positions: Open positions by symbol.
        marks: Newest closing price by symbol.
        trades: Booked trades by symbol.
        history: Newest closed candles by symbol.
        pace: Entries and closes of the last while.
        record: Results of our newest closed trades.
        trading: What kind of orders may be sent.
        executions: By id: all that are not done.
        slippage: What past executions cost, by symbol.
    """

    account: str
    step: int = 0
    cash: AccountState = field(default_factory=AccountState)
    orders: Mapping[str, Order] = field(default_factory=lambda: MappingProxyType({}))
    positions: Mapping[str, Position] = field(default_factory=lambda: MappingProxyType({}))
    marks: Mapping[str, Mark] = field(default_factory=lambda: MappingProxyType({}))
    trades: Mapping[str, TradeMemory] = field(default_factory=lambda: MappingProxyType({}))
    history: Mapping[str, PriceHistory] = field(default_factory=PriceHistories)
    pace: Pace = field(default_factory=Pace)
    record: TradeRecord = field(default_factory=TradeRecord)
    trading: TradingStatus = field(default_factory=TradingStatus)
    executions: Mapping[str, Execution] = field(default_factory=lambda: MappingProxyType({}))
    slippage: Mapping[str, SlippageMemory] = field(default_factory=lambda: MappingProxyType({}))

    # -- orders ----------------------------------------------------------------------------------------------------

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return the orders whose state is not terminal, oldest first."""
        return [
            order
            for order in self.orders.values()
            if not order.status.is_terminal and (symbol is None or order.symbol == symbol)
        ]

    def unfinished_orders(self, symbol: str | None = None) -> list[Order]:
        """Return the orders that still need something from the exchange: a state or a fill."""
        return [
            order
            for order in self.orders.values()
            if not order.is_finished and (symbol is None or order.symbol == symbol)
        ]

    def entry_under_way(self, symbol: str) -> Order | None:
        """Return the entry order of ``symbol`` that is not final yet."""
        for order in self.orders.values():
            if order.symbol == symbol and order.leg is Leg.ENTRY and not order.is_final:
                return order
        return None

    def find_order(self, client_order_id: str, exchange_order_id: str, symbol: str) -> Order | None:
        """Return the order that a report is about, by our id or else by the exchange's."""
        if client_order_id in self.orders:
            return self.orders[client_order_id]
        if not exchange_order_id:
            return None
        for order in self.orders.values():
            if order.symbol == symbol and order.exchange_order_id == exchange_order_id:
                return order
        return None

    # -- executions ------------------------------------------------------------------------------------------------

    def executions_of(self, symbol: str) -> list[Execution]:
        """Return the executions of ``symbol`` that are not done, oldest first."""
        return [execution for execution in self.executions.values() if execution.symbol == symbol]

    def unsent(self, execution: Execution) -> Decimal:
        """Return what ``execution`` may still send, base asset: its rest without the child that is under way."""
        child = self.orders.get(execution.last_order_id)
        return max(ZERO, execution.remaining - (ZERO if child is None else child.remaining))

    # -- exposure --------------------------------------------------------------------------------------------------

    def mark(self, symbol: str) -> Decimal | None:
        """Return the newest closing price, USDT; None before the first."""
        mark = self.marks.get(symbol)
        return None if mark is None else mark.price

    @property
    def market_time(self) -> datetime | None:
        """Newest moment that a price told of, of any symbol; None before the first."""
        return max((mark.at for mark in self.marks.values()), default=None)

    def price_of(self, position: Position) -> Decimal:
        """Return the price that ``position`` is valued at: the mark, or its entry while there is none."""
        return self.mark(position.symbol) or position.net.entry_price

    def unrealized_pnl(self) -> Decimal:
        """Return the open profit of all positions, USDT."""
        return sum((p.net.unrealized_pnl(self.price_of(p)) for p in self.positions.values()), ZERO)

    def equity(self) -> Decimal | None:
        """Return wallet plus open profit, USDT; None while the wallet is unknown."""
        return None if self.cash.wallet is None else self.cash.wallet + self.unrealized_pnl()

    def net_exposure(self) -> Decimal:
        """Return the signed value of all positions, USDT."""
        return sum((p.net.quantity * self.price_of(p) for p in self.positions.values()), ZERO)

    def gross_exposure(self) -> Decimal:
        """Return the value of all positions without sign, USDT."""
        return sum((p.size * self.price_of(p) for p in self.positions.values()), ZERO)

    def margin_used(self) -> Decimal:
        """Return the margin bound by positions and by entries that may still fill or be sent, USDT."""
        held = sum((p.net.cost_usd / p.leverage for p in self.positions.values()), ZERO)
        sent = sum((o.remaining * o.arrival_price / o.leverage for o in self._pending_entries()), ZERO)
        unsent = sum((self.unsent(e) * e.arrival_price / e.leverage for e in self._entry_executions()), ZERO)
        return held + sent + unsent

    def available(self) -> Decimal | None:
        """Return what is free for new positions, USDT; None while the wallet is unknown."""
        equity = self.equity()
        return None if equity is None else equity - self.margin_used()

    def taken_symbols(self) -> set[str]:
        """Return the symbols with a position or with an entry that may become one."""
        pending = {order.symbol for order in self._pending_entries()}
        return set(self.positions) | pending | {execution.symbol for execution in self._entry_executions()}

    def _entry_executions(self) -> list[Execution]:
        return [execution for execution in self.executions.values() if execution.is_entry]

    def _pending_entries(self) -> list[Order]:
        return [o for o in self.orders.values() if o.leg is Leg.ENTRY and not o.is_final]


def remember_orders(orders: Mapping[str, Order]) -> dict[str, Order]:
    """Return the orders that a book keeps out of ``orders`` (oldest first): all unfinished ones, some finished."""
    surplus = sum(_is_past(order) for order in orders.values()) - REMEMBERED_ORDERS
    kept = {}
    for name, order in orders.items():
        if surplus > 0 and _is_past(order):
            surplus -= 1
        else:
            kept[name] = order
    return kept


def _is_past(order: Order) -> bool:
    return order.settled and order.is_finished
