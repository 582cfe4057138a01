"""The request weight of one minute, shared by every service behind one address.

Binance counts per address, so the services count together: one number per minute in Redis, corrected by what the
exchange says in ``X-MBX-USED-WEIGHT-1M``. Services that share a Redis are taken to share an address, too; where they do
not, the count is higher than the truth, which does no harm. While Redis is away each process keeps to a small budget of
its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from shared.clock import Clock
from shared.errors import TransientError
from shared.exchange.request_costs import ApiRequest, Priority
from shared.redis_connection import RedisConnection

#: Weight per minute and address, as ``exchangeInfo`` tells it.
WEIGHT_LIMIT = 2400
#: How far each priority may go, a share of the limit. The rest is the reserve of those above it; exits may go to the
#: end, and a little is left for what nobody counted.
SHARES: Mapping[Priority, float] = MappingProxyType(
    {Priority.MARKET: 0.5, Priority.ACCOUNT: 0.8, Priority.ENTRY: 0.9, Priority.EXIT: 1.0}
)
#: Share of the limit that one process takes for itself while it cannot count together with the others.
ALONE_SHARE = 0.25
#: Longest wait for the count; then the process counts alone.
_ANSWER_SECONDS = 0.25
_MINUTE_SECONDS = 60
#: A count lives longer than its minute, because clocks differ a little.
_KEEP_SECONDS = 150


class WeightBudget:
    """Counts weight per minute of wall time, together with the others where that is possible."""

    def __init__(
        self, scope: str, *, clock: Clock, redis: RedisConnection | None = None, limit: int = WEIGHT_LIMIT
    ) -> None:
        """Prepare, without connecting.

        Args:
            scope: Which exchange is asked: its host.
            clock: Wall clock.
            redis: Where the services count together; None counts for this process alone.
            limit: Weight per minute.
        """
        self._scope = scope
        self._clock = clock
        self._redis = redis
        self.limit = limit
        self._minute = -1
        self._mine = 0
        self._known = 0
        self._is_alone = redis is None

    @property
    def used(self) -> int:
        """Weight used in this minute, as far as this process knows."""
        self._turn_minute()
        return max(self._known, self._mine)

    @property
    def is_shared(self) -> bool:
        """The last count was made together with the other services."""
        return not self._is_alone

    async def take(self, request: ApiRequest) -> float:
        """Count ``request`` if its priority may still spend.

        Returns:
            0 when it may go, else the seconds until it may be tried again; then nothing was counted.
        """
        self._turn_minute()
        if request.weight == 0:
            return 0.0
        if request.priority is Priority.EXIT:
            # Counted without waiting for an answer from anywhere.
            self._mine += request.weight
            return 0.0
        used = await self._counted(request.weight)
        if used <= self._ceiling(request.priority):
            self._mine += request.weight
            return 0.0
        await self._counted(-request.weight)
        return self._seconds_to_next_minute()

    async def report(self, request: ApiRequest, told: int | None) -> None:
        """Note what the exchange says after ``request``, and tell the others what they do not know yet.

        Args:
            request: The one that was answered.
            told: Used weight of this minute according to the exchange; None when it did not say.
        """
        self._turn_minute()
        if request.priority is Priority.EXIT and request.weight:
            await self._counted(request.weight)
        if told is not None and told > self._known:
            await self._counted(told - self._known)

    def _ceiling(self, priority: Priority) -> float:
        share = SHARES[priority] * (ALONE_SHARE if self._is_alone and self._redis is not None else 1.0)
        return self.limit * share

    async def _counted(self, weight: int) -> int:
        """Add ``weight`` to the minute; return the total."""
        self._known += weight
        if self._redis is None:
            return self._known
        key = f"quantum:exchange:{self._scope}:weight:{self._minute}"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                total, _ = await self._redis.execute(("INCRBY", key, weight), ("EXPIRE", key, _KEEP_SECONDS))
        except (TransientError, TimeoutError):
            self._is_alone = True
            return max(self._mine + max(0, weight), 0)
        self._is_alone = False
        assert isinstance(total, int)
        self._known = max(total, 0)
        return self._known

    def _turn_minute(self) -> None:
        minute = int(self._clock.now().timestamp()) // _MINUTE_SECONDS
        if minute != self._minute:
            self._minute, self._mine, self._known = minute, 0, 0

    def _seconds_to_next_minute(self) -> float:
        return _MINUTE_SECONDS - self._clock.now().timestamp() % _MINUTE_SECONDS
