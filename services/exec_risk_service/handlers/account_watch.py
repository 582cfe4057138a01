"""Keeps entries back while something outside the book is wrong: the clock, a ban, the terms of the account.

It compares what is wrong now with what the book holds entries back for, again and again: nothing is forgotten over a
restart, and nothing is told twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from services.exec_risk_service.domain.account_terms import refusals, warnings
from services.exec_risk_service.domain.inputs import TradingLifted, TradingRestricted
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import TradingTerms
from shared.clock import Clock
from shared.errors import TransientError

#: Wall time between two looks at the modes of the account and the permissions of its key.
TERMS_SECONDS = 300.0
#: After a refusal that concerns the account they are looked at earlier.
SUSPICION_SECONDS = 60.0
_RULE = "account-watch"

log = structlog.get_logger(__name__)


class AccountWatch:
    """Restricts and lifts, one cause at a time."""

    def __init__(
        self,
        ledger: Ledger,
        terms: TradingTerms,
        *,
        clock: Clock,
        causes: Mapping[TradingCause, Callable[[], str | None]],
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            terms: Modes and permissions, asked for every few minutes.
            clock: Wall clock.
            causes: What can be wrong, and how to find out why it is; each answers at once.
        """
        self._ledger = ledger
        self._terms = terms
        self._clock = clock
        self._refusal: str | None = None
        self._next_terms = clock.monotonic() + TERMS_SECONDS
        self._warned: tuple[str, ...] = ()
        self._causes: Mapping[TradingCause, Callable[[], str | None]] = {
            **causes,
            TradingCause.ACCOUNT_TERMS: self._refused_terms,
        }

    def suspect(self, why: str) -> None:
        """A refusal of the exchange says that key, modes or state of the account are wrong: entries wait for a look."""
        self._refusal = why
        self._next_terms = min(self._next_terms, self._clock.monotonic() + SUSPICION_SECONDS)

    async def tick(self) -> None:
        """Look once.

        Raises:
            TransientError: The journal or the exchange cannot be reached; the next look tries again.
        """
        if self._ledger.is_fenced or self._ledger.needs_recovery:
            return
        for cause, why in self._causes.items():
            await self._apply(cause, why())
        if self._clock.monotonic() >= self._next_terms:
            self._next_terms = self._clock.monotonic() + TERMS_SECONDS
            await self.look_at_terms()

    async def look_at_terms(self) -> None:
        """Ask for modes and permissions now; what cannot be asked stays as it was."""
        try:
            terms = await self._terms.account_terms()
        except TransientError as error:
            log.info("account_terms_unknown", error=str(error))
            return
        self._refusal = "; ".join(refusals(terms)) or None
        found = warnings(terms)
        for warning in found:
            if warning not in self._warned:
                log.warning("account_terms_weak", hint=warning)
        self._warned = found
        await self._apply(TradingCause.ACCOUNT_TERMS, self._refusal)

    def _refused_terms(self) -> str | None:
        return self._refusal

    async def _apply(self, cause: TradingCause, why: str | None) -> None:
        is_restricted = self._ledger.book.trading.restriction(cause) is not None
        if why is not None and not is_restricted:
            await self._ledger.apply(TradingRestricted(cause, why, _RULE, severity="CRITICAL"))
        elif why is None and is_restricted:
            await self._ledger.apply(TradingLifted(cause, "it is over", _RULE))
