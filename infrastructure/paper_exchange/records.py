"""Values that go in and out of the matching engine: requests, orders, fills, incomes, quotes and the whole book."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, OrderType, Side
from shared.trading.positions import Fill


class TimeInForce(StrEnum):
    """How long an order may rest."""

    GTC = "GTC"
    IOC = "IOC"  # what cannot be filled at once expires
    FOK = "FOK"  # all at once, or refused
    GTX = "GTX"  # post only: refused when it would take


class WorkingType(StrEnum):
    """The price that triggers a conditional order."""

    CONTRACT_PRICE = "CONTRACT_PRICE"
    MARK_PRICE = "MARK_PRICE"


class AlgoStatus(StrEnum):
    """Life of a conditional order."""

    NEW = "NEW"
    TRIGGERING = "TRIGGERING"
    TRIGGERED = "TRIGGERED"
    FINISHED = "FINISHED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A MARKET or LIMIT order as a client sends it.

    Attributes:
        symbol: Venue symbol.
        side: BUY or SELL.
        type: MARKET or LIMIT.
        quantity: Base asset.
        price: Limit price, USDT; None for MARKET.
        time_in_force: Ignored for MARKET.
        client_order_id: The client's own id; empty lets the exchange choose one.
        reduce_only: Refuse what would open or increase a position.
    """

    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    client_order_id: str = ""
    reduce_only: bool = False


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """A regular order in the exchange's book; replaced, never changed.

    Attributes:
        order_id: The exchange's id, counts up per symbol.
        quantity: Ordered base asset; ``executed`` of it is filled.
        quote: Sum of price x quantity over the fills, USDT.
        origin_type: Type before a trigger: STOP_MARKET for the market order that a stop became.
        algo_id: The conditional order behind it, or None.
        close_position: True when it closes whatever the position is.
        created_at: Market time; likewise ``updated_at``.
    """

    symbol: str
    order_id: int
    client_order_id: str
    side: Side
    type: OrderType
    origin_type: OrderType
    quantity: Decimal
    price: Decimal
    time_in_force: TimeInForce
    reduce_only: bool
    status: OrderStatus
    created_at: datetime
    updated_at: datetime
    executed: Decimal = ZERO
    quote: Decimal = ZERO
    algo_id: int | None = None
    close_position: bool = False
    stop_price: Decimal = ZERO
    working_type: WorkingType = WorkingType.CONTRACT_PRICE

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.executed

    @property
    def average_price(self) -> Decimal:
        """Mean fill price, USDT; 0 while nothing is filled."""
        return self.quote / self.executed if self.executed else ZERO

    @property
    def is_open(self) -> bool:
        return self.status in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)


@dataclass(frozen=True, slots=True)
class AlgoRequest:
    """A STOP_MARKET or TAKE_PROFIT_MARKET order as a client sends it.

    Attributes:
        quantity: Base asset; None with ``close_position``.
        trigger_price: USDT.
        client_algo_id: The client's own id; empty lets the exchange choose one.
        close_position: Close the whole position at the trigger.
    """

    symbol: str
    side: Side
    type: OrderType
    trigger_price: Decimal
    quantity: Decimal | None = None
    client_algo_id: str = ""
    reduce_only: bool = False
    close_position: bool = False
    working_type: WorkingType = WorkingType.CONTRACT_PRICE


@dataclass(frozen=True, slots=True)
class AlgoRecord:
    """A conditional order; replaced, never changed.

    Attributes:
        algo_id: The exchange's id of the condition.
        quantity: Base asset; 0 with ``close_position``.
        actual_order_id: Id of the market order it became, or None.
        reject_reason: Why the market order was refused at the trigger; empty otherwise.
        triggered_at: Market time of the trigger, or None.
    """

    symbol: str
    algo_id: int
    client_algo_id: str
    side: Side
    type: OrderType
    quantity: Decimal
    trigger_price: Decimal
    reduce_only: bool
    close_position: bool
    working_type: WorkingType
    status: AlgoStatus
    created_at: datetime
    updated_at: datetime
    triggered_at: datetime | None = None
    actual_order_id: int | None = None
    actual_price: Decimal = ZERO
    actual_quantity: Decimal = ZERO
    reject_reason: str = ""

    @property
    def is_open(self) -> bool:
        return self.status is AlgoStatus.NEW


@dataclass(frozen=True, slots=True)
class FillRecord:
    """One trade of the account: the fill, and whether it made or took liquidity."""

    fill: Fill
    order_id: int
    is_maker: bool


class IncomeType(StrEnum):
    """Why the wallet changed."""

    REALIZED_PNL = "REALIZED_PNL"
    COMMISSION = "COMMISSION"
    FUNDING_FEE = "FUNDING_FEE"


@dataclass(frozen=True, slots=True)
class IncomeRecord:
    """One change of the wallet.

    Attributes:
        amount: USDT; negative when paid.
        transaction_id: Counts up over the account.
        trade_id: The fill behind it, or None.
    """

    type: IncomeType
    symbol: str
    amount: Decimal
    time: datetime
    transaction_id: int
    trade_id: int | None = None


@dataclass(frozen=True, slots=True)
class PositionRecord:
    """A position with what follows from the mark price; prices and amounts in USDT.

    Attributes:
        quantity: Signed base asset: positive is long.
        initial_margin: Margin that the position binds.
        order_margin: Margin that resting orders bind on top.
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    leverage: int
    unrealized_pnl: Decimal
    initial_margin: Decimal
    order_margin: Decimal
    maintenance_margin: Decimal
    updated_at: datetime

    @property
    def notional(self) -> Decimal:
        """Signed value at the mark price, USDT."""
        return self.quantity * self.mark_price


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """The account at one moment, USDT.

    Attributes:
        wallet: Deposits plus every income.
        available: What new positions may bind.
    """

    wallet: Decimal
    unrealized_pnl: Decimal
    initial_margin: Decimal
    order_margin: Decimal
    maintenance_margin: Decimal
    available: Decimal
    positions: tuple[PositionRecord, ...]
    updated_at: datetime

    @property
    def margin_balance(self) -> Decimal:
        return self.wallet + self.unrealized_pnl


@dataclass(frozen=True, slots=True)
class Level:
    """Quantity (base asset) on offer at a price (USDT)."""

    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade between other people.

    Attributes:
        trade_id: Counts up per symbol.
        taker: Who took: the buyer is the maker when it is SELL.
    """

    symbol: str
    trade_id: int
    price: Decimal
    quantity: Decimal
    time: datetime
    taker: Side


@dataclass(frozen=True, slots=True)
class Quote:
    """A symbol's prices now, USDT, and the quantities at the best ones."""

    symbol: str
    time: datetime
    last: Decimal
    mark: Decimal
    bid: Level
    ask: Level
    funding_rate: Decimal
    next_funding: datetime


@dataclass(frozen=True, slots=True)
class Books:
    """All that the exchange knows about the account; two engines with the same past have equal books.

    Attributes:
        time: Market time.
        wallet_start: Deposit, USDT; ``wallet`` is what it became.
    """

    time: datetime
    wallet_start: Decimal
    wallet: Decimal
    orders: tuple[OrderRecord, ...]
    algo_orders: tuple[AlgoRecord, ...]
    fills: tuple[FillRecord, ...]
    incomes: tuple[IncomeRecord, ...]
    positions: tuple[PositionRecord, ...]
