"""Values that go in and out of the matching engine: requests, orders, fills, incomes, quotes and the whole book."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from infrastructure.paper_exchange.modes import ExpiryReason, MarginType, PositionSide, SelfTradePrevention
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, OrderType, Side
from shared.trading.positions import Fill


class TimeInForce(StrEnum):
    """How long an order may rest."""

    GTC = "GTC"
    IOC = "IOC"  # what cannot be filled at once expires
    FOK = "FOK"  # all at once, or refused
    GTX = "GTX"  # post only: refused when it would take
    GTD = "GTD"  # until a date
    GTE_GTC = "GTE_GTC"  # conditional orders only: until the position is gone


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
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


def closes(position_side: PositionSide, side: Side) -> bool:
    """Tell whether ``side`` is the closing one of a hedge-mode position."""
    return position_side is (PositionSide.LONG if side is Side.SELL else PositionSide.SHORT)


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
        position_side: BOTH in one-way mode, LONG or SHORT in hedge mode.
        good_till: When a GTD order expires, market time.
        self_trade_prevention: Who gives way when the order meets one of the account's own.
    """

    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    client_order_id: str = ""
    reduce_only: bool = False
    position_side: PositionSide = PositionSide.BOTH
    good_till: datetime | None = None
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER

    @property
    def only_reduces(self) -> bool:
        """True when it can never open: reduce-only, or against the direction of its hedge-mode position."""
        return self.reduce_only or closes(self.position_side, self.side)


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
        good_till: When a GTD order expires, market time.
        expiry_reason: Why it expired; NONE while it did not.
        is_forced: True for orders of the exchange itself: liquidation, deleveraging, settlement.
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
    position_side: PositionSide = PositionSide.BOTH
    price_protect: bool = False
    good_till: datetime | None = None
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER
    expiry_reason: ExpiryReason = ExpiryReason.NONE
    is_forced: bool = False

    @property
    def only_reduces(self) -> bool:
        """True when it can never open: reduce-only, or against the direction of its hedge-mode position."""
        return self.reduce_only or closes(self.position_side, self.side)

    @property
    def status_word(self) -> str:
        """The status as Binance spells it, which knows one more way to expire."""
        return "EXPIRED_IN_MATCH" if self.expiry_reason.is_in_match else self.status.value

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
class OrderChange:
    """What a client wants of a resting order, named by one of its ids.

    Attributes:
        side: Must be the order's own when it is told.
        quantity: New total, base asset; what is already filled counts.
        price: New limit price, USDT.
    """

    symbol: str
    quantity: Decimal
    price: Decimal
    side: Side | None = None
    order_id: int | None = None
    client_order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Amendment:
    """One change of a resting order by its owner.

    Attributes:
        number: 1 for the first change of the order.
        old_price: USDT, before the change; likewise ``old_quantity``.
    """

    number: int
    symbol: str
    order_id: int
    client_order_id: str
    time: datetime
    old_price: Decimal
    new_price: Decimal
    old_quantity: Decimal
    new_quantity: Decimal


@dataclass(frozen=True, slots=True)
class AlgoRequest:
    """A conditional order as a client sends it.

    Attributes:
        trigger_price: USDT; None for TRAILING_STOP_MARKET.
        quantity: Base asset; None with ``close_position``.
        client_algo_id: The client's own id; empty lets the exchange choose one.
        close_position: Close the whole position at the trigger.
        price: Limit price of STOP and TAKE_PROFIT, USDT.
        time_in_force: Of the limit order it becomes; GTE_GTC ties the condition to the position.
        activation_price: Where a trailing stop starts to follow, USDT; None starts at once.
        callback_rate: Distance of a trailing stop from the best price, percent.
        price_protect: Refuse the trigger when last and mark price are far apart.
    """

    symbol: str
    side: Side
    type: OrderType
    trigger_price: Decimal | None = None
    quantity: Decimal | None = None
    client_algo_id: str = ""
    reduce_only: bool = False
    close_position: bool = False
    working_type: WorkingType = WorkingType.CONTRACT_PRICE
    position_side: PositionSide = PositionSide.BOTH
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    good_till: datetime | None = None
    activation_price: Decimal | None = None
    callback_rate: Decimal | None = None
    price_protect: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER


@dataclass(frozen=True, slots=True)
class AlgoRecord:
    """A conditional order; replaced, never changed.

    Attributes:
        algo_id: The exchange's id of the condition.
        quantity: Base asset; 0 with ``close_position``.
        trigger_price: USDT; for a trailing stop where it triggers now, 0 before its activation.
        actual_order_id: Id of the regular order it became, or None.
        reject_reason: Why the regular order was refused at the trigger; empty otherwise.
        triggered_at: Market time of the trigger, or None.
        extreme: Best price a trailing stop has followed, USDT; None before its activation.
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
    position_side: PositionSide = PositionSide.BOTH
    price: Decimal = ZERO
    time_in_force: TimeInForce = TimeInForce.GTC
    good_till: datetime | None = None
    activation_price: Decimal | None = None
    callback_rate: Decimal | None = None
    extreme: Decimal | None = None
    price_protect: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER

    @property
    def is_open(self) -> bool:
        return self.status is AlgoStatus.NEW

    @property
    def becomes(self) -> OrderType:
        """Type of the regular order behind the trigger."""
        return OrderType.LIMIT if self.type in (OrderType.STOP, OrderType.TAKE_PROFIT) else OrderType.MARKET


@dataclass(frozen=True, slots=True)
class FillRecord:
    """One trade of the account: the fill, the position it changed, and whether it made or took liquidity."""

    fill: Fill
    order_id: int
    is_maker: bool
    position_side: PositionSide = PositionSide.BOTH


class IncomeType(StrEnum):
    """Why the wallet changed."""

    REALIZED_PNL = "REALIZED_PNL"
    COMMISSION = "COMMISSION"
    FUNDING_FEE = "FUNDING_FEE"
    TRANSFER = "TRANSFER"
    INSURANCE_CLEAR = "INSURANCE_CLEAR"  # clearance fee of a liquidation, or what the insurance fund paid for it


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
class MarginChange:
    """Margin that was moved between the cross wallet and an isolated position.

    Attributes:
        amount: USDT, above 0 when it was added to the position.
    """

    symbol: str
    position_side: PositionSide
    amount: Decimal
    time: datetime


@dataclass(frozen=True, slots=True)
class PositionRecord:
    """A position with what follows from the mark price; prices and amounts in USDT.

    Attributes:
        quantity: Signed base asset: positive is long.
        initial_margin: Margin that the position binds.
        order_margin: Margin that resting orders bind on top.
        isolated_wallet: What was set aside for it; 0 when cross-margined.
        liquidation_price: 0 when flat or out of reach.
        break_even_price: Entry price and the fees of opening.
        realized: Profit booked since the account was opened, fees not included.
        bid_notional: Value of resting BUY orders; likewise ``ask_notional``.
        adl: Place in the line for auto-deleveraging, 0 (last) to 4.
    """

    symbol: str
    position_side: PositionSide
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    leverage: int
    margin_type: MarginType
    unrealized_pnl: Decimal
    initial_margin: Decimal
    order_margin: Decimal
    maintenance_margin: Decimal
    isolated_wallet: Decimal
    liquidation_price: Decimal
    break_even_price: Decimal
    realized: Decimal
    bid_notional: Decimal
    ask_notional: Decimal
    adl: int
    updated_at: datetime

    @property
    def notional(self) -> Decimal:
        """Signed value at the mark price, USDT."""
        return self.quantity * self.mark_price

    @property
    def isolated_margin(self) -> Decimal:
        """Isolated wallet and open profit; 0 when cross-margined."""
        return self.isolated_wallet + self.unrealized_pnl if self.margin_type is MarginType.ISOLATED else ZERO


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """The account at one moment, USDT.

    Attributes:
        wallet: Deposits plus every income.
        cross_wallet: What of it is not set aside for isolated positions.
        cross_pnl: Open profit of the cross-margined positions.
        available: What new positions may bind.
    """

    wallet: Decimal
    cross_wallet: Decimal
    unrealized_pnl: Decimal
    cross_pnl: Decimal
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
