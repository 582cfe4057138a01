"""The one listen key of the account: the same until it expires, renewed by POST and PUT."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from infrastructure.paper_exchange.refusals import refusal

_LIFETIME = timedelta(minutes=60)


class ListenKeys:
    """Hands out a key and tells when it has expired; times are wall times."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key
        self._generation = 0
        self._expires_at: datetime | None = None

    @property
    def current(self) -> str:
        """The key that is or would be handed out; it does not change when the exchange is started again."""
        return hashlib.sha256(f"{self._api_key}|{self._generation}".encode()).hexdigest()

    def create(self, now: datetime) -> str:
        """Return the key, alive for 60 minutes from now."""
        self._expires_at = now + _LIFETIME
        return self.current

    def renew(self, now: datetime) -> str:
        """Extend the living key (-1125 without one)."""
        if self._expires_at is None:
            raise refusal(-1125)
        return self.create(now)

    def expire(self, now: datetime, *, at_once: bool = False) -> str | None:
        """Return the key that has expired by ``now`` (or expires at once), None while it lives."""
        if self._expires_at is None or (now < self._expires_at and not at_once):
            return None
        expired = self.current
        self._generation += 1
        self._expires_at = None
        return expired

    def delete(self) -> None:
        """Invalidate the key without a word to its streams, as Binance does."""
        if self._expires_at is not None:
            self._generation += 1
            self._expires_at = None
