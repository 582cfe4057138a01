"""How long the last known signals count when ai-service is away.

The specification says of a crash of ai-service: "exec-risk-service uses last known signals for 5 minutes". What that
means for the account is this. A signal is decided on once, when it comes; nothing decides on an old one again. What
still rests on the last signals while ai-service is silent are the positions and executions that they began. For five
minutes of market time from its last sign of life these go on as planned: slices of an entry are sent, positions are
held for their plan. After that no decision rests on a signal any more: entries are held back (REDUCING, cause
``SIGNALS_EXPIRED``), also the rest of entries that were begun, until ai-service speaks again. What protects goes on
for as long as it takes, from the exchange's own prices: stops and targets rest there, break-even, trailing and time
decay move them, and the holding time ends positions.

The age of a signal itself tells nothing: on candles of an hour one of 50 minutes is the newest there can be. So it is
the heartbeat that counts.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared.clock import Clock
from shared.events.envelope import Event

#: Service whose signals are traded.
_SOURCE = "ai-service"
#: Silence, wall time, after which a service counts as away; the same as for Self-Healing.
_AWAY_SECONDS = 15.0
#: How long the last known signals count from its last sign of life on, market time.
LAST_SIGNALS_COUNT = timedelta(minutes=5)


class SignalSource:
    """Listens for signs of life of ai-service."""

    def __init__(self, clock: Clock, market_clock: Clock) -> None:
        """Prepare; the time counts from here until the first sign of life.

        Args:
            clock: Wall clock.
            market_clock: Market time.
        """
        self._clock = clock
        self._market_clock = market_clock
        self._heard_at = clock.monotonic()
        self._heard_market = market_clock.now()

    async def on_heartbeat(self, event: Event[Any]) -> None:
        """Note that a service is alive."""
        if event.payload.service_name == _SOURCE:
            self._heard_at, self._heard_market = self._clock.monotonic(), self._market_clock.now()

    def bar(self) -> str | None:
        """Return why nothing may rest on a signal now; None while the last ones count."""
        away = self._market_clock.now() - self._heard_market
        if not self._is_away or away <= LAST_SIGNALS_COUNT:
            return None
        silent = f"{_SOURCE} has been silent for {away.total_seconds():.0f} s of market time"
        return f"{silent}: its last signals count no more"

    @property
    def line(self) -> str:
        """What ``/health`` says about it."""
        if not self._is_away:
            return "live"
        left = LAST_SIGNALS_COUNT - (self._market_clock.now() - self._heard_market)
        silent = f"{_SOURCE} silent for {self._clock.monotonic() - self._heard_at:.0f} s"
        if left > timedelta(0):
            return f"{silent}: its last signals count for another {left.total_seconds():.0f} s of market time"
        return f"{silent}: its last signals count no more, protection goes on"

    @property
    def _is_away(self) -> bool:
        return self._clock.monotonic() - self._heard_at > _AWAY_SECONDS
