"""Orders and the states they can be in, in Binance's words."""

from __future__ import annotations

from enum import StrEnum

from shared.fsm import TransitionTable


class Side(StrEnum):
    """Direction of an order."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY

    @property
    def sign(self) -> int:
        """+1 for BUY, -1 for SELL."""
        return 1 if self is Side.BUY else -1


class OrderType(StrEnum):
    """Order types; all but the first two rest as algo orders."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"  # becomes a limit order
    STOP_MARKET = "STOP_MARKET"
    TAKE_PROFIT = "TAKE_PROFIT"  # becomes a limit order
    TAKE_PROFIT_MARKET = "TAKE_PROFIT_MARKET"
    TRAILING_STOP_MARKET = "TRAILING_STOP_MARKET"

    @property
    def is_algo(self) -> bool:
        """True for the conditional types, which Binance keeps on the algoOrder endpoints."""
        return self not in (OrderType.MARKET, OrderType.LIMIT)


class TimeInForce(StrEnum):
    """How long a limit order may rest."""

    GTC = "GTC"
    IOC = "IOC"  # what cannot be filled at once expires
    GTX = "GTX"  # post only: refused when it would take

    @property
    def rests(self) -> bool:
        """True when an order may stay in the book."""
        return self is not TimeInForce.IOC


class OrderStatus(StrEnum):
    """Life of one of our orders: ours until SUBMITTED, the exchange's afterwards."""

    INITIALIZED = "INITIALIZED"  # the intent is committed, nothing was sent
    SUBMITTED = "SUBMITTED"  # sent, no answer yet
    UNKNOWN = "UNKNOWN"  # the answer was lost: query, never send again
    NEW = "NEW"  # rests on the exchange
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    TRIGGERED = "TRIGGERED"  # a conditional order became a market order
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"  # the exchange said no
    ABSENT = "ABSENT"  # proven never to have reached the exchange

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset(
    {OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED, OrderStatus.ABSENT}
)

_OPEN = (
    OrderStatus.SUBMITTED,
    OrderStatus.UNKNOWN,
    OrderStatus.NEW,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.TRIGGERED,
)

#: ``(state, report) -> state``. A report that repeats what is known changes nothing.
ORDER_STATES: TransitionTable[OrderStatus, OrderStatus] = TransitionTable(
    "order",
    {
        (OrderStatus.INITIALIZED, OrderStatus.SUBMITTED): OrderStatus.SUBMITTED,
        (OrderStatus.INITIALIZED, OrderStatus.ABSENT): OrderStatus.ABSENT,  # crash before the send
        # A crash between send and note: the exchange knows more than our row.
        **{
            (OrderStatus.INITIALIZED, seen): seen
            for seen in (
                OrderStatus.UNKNOWN,
                OrderStatus.NEW,
                OrderStatus.PARTIALLY_FILLED,
                OrderStatus.TRIGGERED,
                OrderStatus.FILLED,
                OrderStatus.CANCELED,
                OrderStatus.EXPIRED,
                OrderStatus.REJECTED,
            )
        },
        (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN): OrderStatus.UNKNOWN,
        (OrderStatus.SUBMITTED, OrderStatus.ABSENT): OrderStatus.ABSENT,
        (OrderStatus.UNKNOWN, OrderStatus.ABSENT): OrderStatus.ABSENT,
        **{
            (state, OrderStatus.NEW): OrderStatus.NEW
            for state in (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN, OrderStatus.NEW)
        },
        **{
            (state, report): report
            for state in _OPEN
            for report in (
                OrderStatus.PARTIALLY_FILLED,
                OrderStatus.FILLED,
                OrderStatus.CANCELED,
                OrderStatus.EXPIRED,
                OrderStatus.REJECTED,
            )
        },
        **{
            (state, OrderStatus.TRIGGERED): OrderStatus.TRIGGERED
            for state in (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN, OrderStatus.NEW, OrderStatus.TRIGGERED)
        },
        # Seen on Binance: a cancel and the last fill cross on the wire; the fill is the truth.
        (OrderStatus.CANCELED, OrderStatus.FILLED): OrderStatus.FILLED,
    },
)
