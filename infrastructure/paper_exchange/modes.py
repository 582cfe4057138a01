"""The words in which an account and its orders can differ: sides, margin types, self-trades, reasons to expire."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class PositionSide(StrEnum):
    """Which position an order works on: BOTH is the only one in one-way mode, the others are hedge mode's two."""

    BOTH = "BOTH"
    LONG = "LONG"
    SHORT = "SHORT"


class MarginType(StrEnum):
    """What stands behind a position: the whole wallet, or what was set aside for it."""

    CROSSED = "CROSSED"
    ISOLATED = "ISOLATED"

    @property
    def word(self) -> str:
        """How answers and events spell it: ``cross`` or ``isolated``."""
        return "cross" if self is MarginType.CROSSED else "isolated"


class SelfTradePrevention(StrEnum):
    """Who gives way when an order meets another one of the same account."""

    NONE = "NONE"
    EXPIRE_TAKER = "EXPIRE_TAKER"
    EXPIRE_MAKER = "EXPIRE_MAKER"
    EXPIRE_BOTH = "EXPIRE_BOTH"


class ExpiryReason(IntEnum):
    """Why an order expired, as the user stream's ``er`` numbers it."""

    NONE = 0
    SELF_TRADE = 1
    IOC_REST = 2
    IOC_SELF_TRADE = 3
    NOTHING_TO_REDUCE = 4
    LIQUIDATION = 5
    POSITION_GONE = 6
    DELISTED = 7
    TRIGGERED = 8
    MARKET_REST = 9

    @property
    def is_in_match(self) -> bool:
        """True where the status reads EXPIRED_IN_MATCH."""
        return self in (ExpiryReason.SELF_TRADE, ExpiryReason.IOC_SELF_TRADE)


class SymbolStatus(StrEnum):
    """What a contract may be used for."""

    PENDING_TRADING = "PENDING_TRADING"
    TRADING = "TRADING"
    SETTLING = "SETTLING"  # being delisted: only orders that reduce
    CLOSE = "CLOSE"

    @property
    def trades(self) -> bool:
        """True while orders are matched."""
        return self in (SymbolStatus.TRADING, SymbolStatus.SETTLING)
