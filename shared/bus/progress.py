"""What a bus tells about itself in heartbeats."""

from __future__ import annotations

from dataclasses import dataclass

from shared.clock import Clock

_WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class BusProgress:
    """How consuming goes.

    Attributes:
        pending: Entries taken from the streams and not settled yet.
        processed_last_minute: Entries settled in the last 60 s.
        last_event_id: Id of the event that was settled last; None before the first.
        lag_seconds: Age that event had when it was settled; a growing number means that the consumer falls behind.
        oldest_in_hand_seconds: How long the longest try of those under way has been going on; 0 when there is none. An
            entry that waits for its next try is not being tried.
        seconds_since_read: Time since the read loop last came round.
    """

    pending: int
    processed_last_minute: int
    last_event_id: str | None
    lag_seconds: float
    oldest_in_hand_seconds: float = 0.0
    seconds_since_read: float = 0.0


class SlidingCount:
    """Counts what happened in the last minute, in buckets of one second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets = [0] * _WINDOW_SECONDS
        self._second = int(clock.monotonic())

    def add(self, count: int) -> None:
        """Count ``count`` things as happening now."""
        self._forget_what_is_old()
        self._buckets[self._second % _WINDOW_SECONDS] += count

    def total(self) -> int:
        """Return how many things happened in the last minute."""
        self._forget_what_is_old()
        return sum(self._buckets)

    def _forget_what_is_old(self) -> None:
        now = int(self._clock.monotonic())
        for second in range(max(self._second + 1, now - _WINDOW_SECONDS + 1), now + 1):
            self._buckets[second % _WINDOW_SECONDS] = 0
        self._second = now
