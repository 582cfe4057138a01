"""How fast entries may follow each other: a bucket of entries that refills, and symbols that rest after a close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

from shared.trading.money import ZERO

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class LastClose:
    """The newest closed position of one symbol: when, market time, and what it made after fees and funding, USDT."""

    at: datetime
    net_pnl: Decimal


@dataclass(frozen=True, slots=True)
class Pace:
    """What the account did lately; all times are market times.

    Attributes:
        spent: Entries taken out of the bucket and not refilled yet, as of ``spent_at``.
        spent_at: Time of the last entry; None before the first.
        closes: Newest close by symbol.
        hedge_proposed: A hedge was proposed and the exposure has not come back below the trigger.
    """

    spent: Decimal = ZERO
    spent_at: datetime | None = None
    closes: Mapping[str, LastClose] = field(default_factory=lambda: MappingProxyType({}))
    hedge_proposed: bool = False

    def room(self, at: datetime, per_minute: int) -> Decimal:
        """Return how many entries the bucket holds at ``at``, at most ``per_minute``."""
        return per_minute - self._left_to_refill(at, per_minute)

    def entered(self, at: datetime, per_minute: int) -> Pace:
        """Return the pace after one entry."""
        moment = at if self.spent_at is None else max(at, self.spent_at)
        return replace(self, spent=self._left_to_refill(at, per_minute) + 1, spent_at=moment)

    def closed(self, symbol: str, close: LastClose) -> Pace:
        """Return the pace after a position in ``symbol`` was closed."""
        return replace(self, closes=MappingProxyType({**self.closes, symbol: close}))

    def _left_to_refill(self, at: datetime, per_minute: int) -> Decimal:
        if self.spent_at is None:
            return ZERO
        passed = max(timedelta(0), at - self.spent_at)
        refilled = (
            per_minute * Decimal(passed // timedelta(microseconds=1)) / Decimal(_MINUTE // timedelta(microseconds=1))
        )
        return max(ZERO, self.spent - refilled)
