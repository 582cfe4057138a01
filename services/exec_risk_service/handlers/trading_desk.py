"""Keeps entries back for reasons that the account's book does not show, and lets them go when those are over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from services.exec_risk_service.domain.inputs import TradingLifted, TradingRestricted
from services.exec_risk_service.domain.trading_state import TradingCause, TradingState, TradingStatus
from services.exec_risk_service.handlers.ledger import Ledger
from shared.clock import Clock

#: Tells what is wrong, one line with the numbers; None while nothing is.
Look = Callable[[], str | None]

_NAME = "governor"

log = structlog.get_logger(__name__)


class TradingDesk:
    """Asks its looks in turn and tells the ledger what changed."""

    def __init__(self, ledger: Ledger, looks: Mapping[TradingCause, Look]) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            looks: What is asked, by the cause that it would be; each ends with its cause.
        """
        self._ledger = ledger
        self._looks = looks

    @property
    def trading(self) -> TradingStatus:
        """What may be sent, as the journal has it."""
        return self._ledger.book.trading

    async def look(self) -> None:
        """Restrict what is wrong, lift what is over.

        Raises:
            ConnectionLostError: The journal cannot be reached.
        """
        if self._ledger.needs_recovery:
            return
        for cause, look in self._looks.items():
            wrong, known = look(), self.trading.restriction(cause)
            if wrong is not None and known is None:
                await self._ledger.apply(TradingRestricted(cause, wrong, _NAME))
            elif wrong is None and known is not None and known.changed_by == _NAME:
                await self._ledger.apply(TradingLifted(cause, f"over: {known.reason}", _NAME))

    async def restrict(self, state: TradingState, reason: str, by: str) -> None:
        """Keep entries back because a person wants it.

        Raises:
            ConnectionLostError: The journal cannot be reached.
        """
        await self._ledger.apply(TradingRestricted(TradingCause.OPERATOR, reason, by, to=state))
        log.warning("entries_kept_back", state=state.value, reason=reason, by=by)


class CandleWatch:
    """Tells when no symbol's candle has closed for too long, by market time and by wall time."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        clock: Clock,
        market_clock: Clock,
        market_limit: timedelta,
        wall_limit: timedelta,
    ) -> None:
        """Prepare.

        Args:
            ledger: Knows the newest prices.
            clock: Wall clock.
            market_clock: Market time.
            market_limit: Longest market time without a newer price: some candles.
            wall_limit: Longest wait for a newer one, wall time: a fast market must not alarm over every hiccup.
        """
        self._ledger = ledger
        self._clock = clock
        self._market_clock = market_clock
        self._market_limit = market_limit
        self._wall_limit = wall_limit
        self._newest: datetime | None = None
        self._seen_at = clock.monotonic()
        self._market_seen_at = market_clock.now()

    def __call__(self) -> str | None:
        """Return how long no candle closed, when that is too long; before the first one nothing is asked for."""
        marks = self._ledger.book.marks
        newest = max((mark.at for mark in marks.values()), default=None)
        if newest is None:
            return None
        if self._newest is None or newest > self._newest:
            self._newest, self._seen_at = newest, self._clock.monotonic()
            self._market_seen_at = self._market_clock.now()
            return None
        silent = self._clock.monotonic() - self._seen_at
        age = self._market_clock.now() - self._market_seen_at
        if silent < self._wall_limit.total_seconds() or age < self._market_limit:
            return None
        return f"no candle closed for {age.total_seconds():.0f} s of market time ({silent:.0f} s here)"
