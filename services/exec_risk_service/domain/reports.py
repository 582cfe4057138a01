"""What the exchange tells about our account, in our own values: the words that ports, adapters and the core share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, OrderType, Side
from shared.trading.positions import Fill


@dataclass(frozen=True, slots=True)
class OrderReport:
    """The state of one order as the exchange sees it: an answer, a query result or a line of the user stream.

    Attributes:
        client_order_id: Id that we gave (``newClientOrderId`` or ``clientAlgoId``); of strangers, theirs.
        symbol: Venue symbol.
        status: State on the exchange.
        time: Market time of the report.
        filled_quantity: Base asset executed so far; counts what the exchange knows, not only ``fill``.
        exchange_order_id: Id of the regular order; for a conditional order the order that its trigger made.
        algo_id: Id of the conditional order; empty for regular ones.
        reason: Text of the exchange for a refusal.
        fill: The trade that this report carries, if any.
        side: BUY or SELL when the report says so; likewise the terms below, used for orders that we do not know.
    """

    client_order_id: str
    symbol: str
    status: OrderStatus
    time: datetime
    filled_quantity: Decimal = ZERO
    exchange_order_id: str = ""
    algo_id: str = ""
    reason: str = ""
    fill: Fill | None = None
    side: Side | None = None
    order_type: OrderType | None = None
    quantity: Decimal | None = None
    trigger_price: Decimal | None = None

    @property
    def is_algo(self) -> bool:
        return bool(self.algo_id)


@dataclass(frozen=True, slots=True)
class FillReport:
    """A trade read from the list of trades, where orders have no client id."""

    fill: Fill


class CashKind(StrEnum):
    """Why the wallet changed without a trade."""

    FUNDING = "FUNDING"
    TRANSFER = "TRANSFER"


@dataclass(frozen=True, slots=True)
class CashReport:
    """Money that came or went without a trade, read from the list of payments.

    Attributes:
        key: The same for a repeated report of the same payment.
        kind: Funding, or a transfer of any sort.
        amount: USDT, positive when the wallet grew.
        symbol: Position that the funding belongs to; empty for transfers.
        time: Market time.
    """

    key: str
    kind: CashKind
    amount: Decimal
    symbol: str
    time: datetime


@dataclass(frozen=True, slots=True)
class CashChanged:
    """Funding or a transfer moved the wallet: the list of payments says which."""


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The user stream had a gap: what happened meanwhile must be fetched."""


@dataclass(frozen=True, slots=True)
class LeverageChanged:
    """The leverage of a symbol was set, by us or by somebody else on the account."""

    symbol: str
    leverage: int


@dataclass(frozen=True, slots=True)
class MarginCalled:
    """The exchange warns that positions in ``symbols`` are close to liquidation."""

    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OrderInQuestion:
    """Something happened to an order that its own report does not say: a condition fired and was refused.

    Attributes:
        symbol: Venue symbol.
        reason: What the exchange says.
    """

    symbol: str
    reason: str


VenueReport = LeverageChanged | MarginCalled | OrderInQuestion | OrderReport | FillReport | CashChanged | Reconnected


@dataclass(frozen=True, slots=True)
class VenuePosition:
    """A position as the exchange sees it.

    Attributes:
        symbol: Venue symbol.
        quantity: Signed, base asset.
        entry_price: USDT; likewise ``mark_price``.
        liquidation_price: USDT; None when the exchange would not liquidate.
        leverage: Leverage in force; None when it does not follow from what the exchange shows.
        is_isolated: The position has a margin of its own.
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    liquidation_price: Decimal | None = None
    leverage: int | None = None
    is_isolated: bool = False


@dataclass(frozen=True, slots=True)
class VenueAccount:
    """Wallet balance (USDT, without open profit) and every position that is not flat."""

    wallet_balance: Decimal
    positions: tuple[VenuePosition, ...]
