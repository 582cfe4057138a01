"""Why an order is not sent: a code that programs can count, and a sentence with the numbers for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class DenialCode(StrEnum):
    """Names of the reasons; ``risk.alert``, ``execution.result`` and ``validate_risk`` carry them."""

    TRADING_NOT_ALLOWED = "TRADING_NOT_ALLOWED"
    NOT_A_NUMBER = "NOT_A_NUMBER"
    POLICY_STALE = "POLICY_STALE"
    EVENTS_AT_RISK = "EVENTS_AT_RISK"
    NOT_THE_EXECUTOR = "NOT_THE_EXECUTOR"
    ACCOUNT_UNKNOWN = "ACCOUNT_UNKNOWN"
    EQUITY_NOT_POSITIVE = "EQUITY_NOT_POSITIVE"
    SYMBOL_NOT_LISTED = "SYMBOL_NOT_LISTED"
    SYMBOL_BUSY = "SYMBOL_BUSY"
    SIGNAL_INCOMPLETE = "SIGNAL_INCOMPLETE"
    MARK_UNKNOWN = "MARK_UNKNOWN"
    MARK_STALE = "MARK_STALE"
    TERMS_NOT_POSITIVE = "TERMS_NOT_POSITIVE"
    PRICE_OFF_MARKET = "PRICE_OFF_MARKET"
    CONFIDENCE_TOO_LOW = "CONFIDENCE_TOO_LOW"
    COOLDOWN_AFTER_LOSS = "COOLDOWN_AFTER_LOSS"
    COOLDOWN_AFTER_CLOSE = "COOLDOWN_AFTER_CLOSE"
    ENTRIES_TOO_FAST = "ENTRIES_TOO_FAST"
    DRAWDOWN_TOO_DEEP = "DRAWDOWN_TOO_DEEP"
    TOO_MANY_POSITIONS = "TOO_MANY_POSITIONS"
    LEVERAGE_TOO_HIGH = "LEVERAGE_TOO_HIGH"
    SIZE_TOO_LARGE = "SIZE_TOO_LARGE"
    SIZE_TOO_SMALL = "SIZE_TOO_SMALL"
    QUANTITY_ABOVE_SIZE = "QUANTITY_ABOVE_SIZE"
    SYMBOL_EXPOSURE_TOO_LARGE = "SYMBOL_EXPOSURE_TOO_LARGE"
    RISK_AT_STOP_TOO_LARGE = "RISK_AT_STOP_TOO_LARGE"
    MARGIN_TOO_SMALL = "MARGIN_TOO_SMALL"
    MAINTENANCE_TOO_HIGH = "MAINTENANCE_TOO_HIGH"
    LIQUIDATION_BEFORE_STOP = "LIQUIDATION_BEFORE_STOP"
    GROSS_EXPOSURE_TOO_LARGE = "GROSS_EXPOSURE_TOO_LARGE"
    NET_EXPOSURE_TOO_LARGE = "NET_EXPOSURE_TOO_LARGE"
    CORRELATED_EXPOSURE_TOO_LARGE = "CORRELATED_EXPOSURE_TOO_LARGE"
    EFFECTIVE_EXPOSURE_TOO_LARGE = "EFFECTIVE_EXPOSURE_TOO_LARGE"
    VALUE_AT_RISK_TOO_LARGE = "VALUE_AT_RISK_TOO_LARGE"


#: What each code means; ``docs/risk.md`` explains the formulas.
DENIALS: Mapping[DenialCode, str] = MappingProxyType(
    {
        DenialCode.TRADING_NOT_ALLOWED: "The trading state is REDUCING or HALTED: no new positions.",
        DenialCode.NOT_A_NUMBER: "A number of the order or of the account is NaN or infinite.",
        DenialCode.POLICY_STALE: "The policy store does not answer; a remembered policy is good for exits only.",
        DenialCode.EVENTS_AT_RISK: "Events about the new position could get lost.",
        DenialCode.NOT_THE_EXECUTOR: "This process may not open positions now: lease, clock or request limits.",
        DenialCode.ACCOUNT_UNKNOWN: "No balance was read from the exchange yet.",
        DenialCode.EQUITY_NOT_POSITIVE: "Wallet plus open profit is not above 0.",
        DenialCode.SYMBOL_NOT_LISTED: "The exchange does not list the symbol.",
        DenialCode.SYMBOL_BUSY: "A position or an order of the symbol is in the way.",
        DenialCode.SIGNAL_INCOMPLETE: "The signal lacks a price or a size.",
        DenialCode.MARK_UNKNOWN: "No candle of the symbol closed since it is known.",
        DenialCode.MARK_STALE: "The newest price of the symbol is too old, by market time or by wall time.",
        DenialCode.TERMS_NOT_POSITIVE: "Size, price, leverage or stop distance is not above 0.",
        DenialCode.PRICE_OFF_MARKET: "The order's price lies outside the band around the newest price.",
        DenialCode.CONFIDENCE_TOO_LOW: "The signal is less confident than the policy asks.",
        DenialCode.COOLDOWN_AFTER_LOSS: "The symbol lost money a short while ago.",
        DenialCode.COOLDOWN_AFTER_CLOSE: "A position in the symbol was closed a short while ago.",
        DenialCode.ENTRIES_TOO_FAST: "Too many positions were opened within a minute.",
        DenialCode.DRAWDOWN_TOO_DEEP: "Equity, open profit included, fell too far below the day's peak.",
        DenialCode.TOO_MANY_POSITIONS: "As many positions as allowed are open or being opened.",
        DenialCode.LEVERAGE_TOO_HIGH: "Leverage is above policy, settings or the exchange's first bracket.",
        DenialCode.SIZE_TOO_LARGE: "One position would be larger than allowed.",
        DenialCode.SIZE_TOO_SMALL: "The exchange takes no order that small.",
        DenialCode.QUANTITY_ABOVE_SIZE: "The quantity is worth more than the size that was checked.",
        DenialCode.SYMBOL_EXPOSURE_TOO_LARGE: "The symbol would hold more than allowed, pending orders included.",
        DenialCode.RISK_AT_STOP_TOO_LARGE: "The loss at the stop would be larger than one trade may lose.",
        DenialCode.MARGIN_TOO_SMALL: "The free margin does not cover the order and the reserve.",
        DenialCode.MAINTENANCE_TOO_HIGH: "Maintenance margin would take too much of the equity.",
        DenialCode.LIQUIDATION_BEFORE_STOP: "The exchange would liquidate before the stop is reached.",
        DenialCode.GROSS_EXPOSURE_TOO_LARGE: "All positions together would be too large.",
        DenialCode.NET_EXPOSURE_TOO_LARGE: "Longs and shorts would be too far apart.",
        DenialCode.CORRELATED_EXPOSURE_TOO_LARGE: "Symbols that move together would hold too much in one direction.",
        DenialCode.EFFECTIVE_EXPOSURE_TOO_LARGE: "The portfolio would be too large, each pair weighed by correlation.",
        DenialCode.VALUE_AT_RISK_TOO_LARGE: "The portfolio could lose too much within the horizon.",
    }
)


@dataclass(frozen=True, slots=True)
class Denial:
    """One reason against one order.

    Attributes:
        code: Which limit.
        text: One line with the offending number and the limit.
    """

    code: DenialCode
    text: str

    def __str__(self) -> str:
        return self.text
