"""States in which the exchange answers no request as usual: maintenance, a rate limit that was hit, a ban."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outage:
    """What every request gets until ``until`` (monotonic seconds).

    Attributes:
        status: 503 or 504 without JSON, 429, or 418.
    """

    status: int
    until: float

    def seconds_left(self, now: float) -> int:
        return max(1, math.ceil(self.until - now))


class Outages:
    """At most one outage at a time; a rate limit that is ignored becomes a ban, and bans grow."""

    #: Requests that Binance lets pass under 429 before it bans the address.
    PATIENCE = 10
    #: A first ban, wall seconds; each further one is twice as long, up to the longest.
    FIRST_BAN = 120.0
    LONGEST_BAN = 3 * 86_400.0

    def __init__(self) -> None:
        self._current: Outage | None = None
        self._ignored = 0
        self._bans = 0

    def begin(self, status: int, now: float, seconds: float) -> None:
        """Answer every request with ``status`` for ``seconds`` from ``now``."""
        self._current = Outage(status, now + seconds)
        self._ignored = 0

    def turn_away(self, now: float, seconds: float) -> None:
        """Begin to answer 429 for ``seconds``, unless something worse or just that is going on."""
        if self._running(now) is None:
            self.begin(429, now, seconds)

    def end(self) -> None:
        self._current = None
        self._ignored = self._bans = 0

    def meet(self, now: float) -> Outage | None:
        """Return what a request at ``now`` gets, None when it is answered as usual."""
        current = self._running(now)
        if current is not None and current.status == 429:
            self._ignored += 1
            if self._ignored > self.PATIENCE:
                self.begin(418, now, min(self.LONGEST_BAN, self.FIRST_BAN * 2**self._bans))
                self._bans += 1
        return self._current

    def _running(self, now: float) -> Outage | None:
        if self._current is not None and now >= self._current.until:
            self._current = None
            self._ignored = 0
        return self._current
