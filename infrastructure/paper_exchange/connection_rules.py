"""The limits that Binance puts on WebSocket connections; wall seconds throughout."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """What a connection may do, and how long it lasts.

    Attributes:
        lifetime_seconds: Age at which the exchange closes a connection.
        ping_seconds: Pace of the exchange's pings.
        pong_seconds: Silence of the client after which the exchange closes.
        messages: Messages that a client may send within ``messages_seconds``; one more closes its connection.
        streams: Most streams of one connection.
        connects: Handshakes of one address within ``connects_seconds``; more are refused.
    """

    lifetime_seconds: float = 86_400.0
    ping_seconds: float = 180.0
    pong_seconds: float = 600.0
    messages: int = 10
    messages_seconds: float = 1.0
    streams: int = 1024
    connects: int = 300
    connects_seconds: float = 300.0


BINANCE_RULES = ConnectionRules()


class SlidingCount:
    """Counts what happened within the last ``seconds``."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._times: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Count one more at ``now`` and tell whether the limit still holds."""
        while self._times and now - self._times[0] >= self._seconds:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self._limit
