"""When to stop trying: a circuit breaker as a table of states. Whoever owns it tells it the time and what happened."""

from __future__ import annotations

from enum import StrEnum

from shared.fsm import TransitionTable


class BreakerState(StrEnum):
    """Whether requests are let through."""

    CLOSED = "closed"  # they are
    OPEN = "open"  # they fail at once
    HALF_OPEN = "half_open"  # they fail at once, and a probe that may close it is on its way


class _Trigger(StrEnum):
    PROBED = "probed"  # a probe sets out
    FAILED = "failed"  # it failed, and that is not yet enough
    TRIPPED = "tripped"  # it failed, and that is enough
    ABANDONED = "abandoned"  # it was broken off and says nothing
    SUCCEEDED = "succeeded"


_TABLE = TransitionTable(
    "circuit breaker",
    {
        (BreakerState.CLOSED, _Trigger.PROBED): BreakerState.CLOSED,
        (BreakerState.CLOSED, _Trigger.FAILED): BreakerState.CLOSED,
        (BreakerState.CLOSED, _Trigger.TRIPPED): BreakerState.OPEN,
        (BreakerState.CLOSED, _Trigger.ABANDONED): BreakerState.CLOSED,
        (BreakerState.CLOSED, _Trigger.SUCCEEDED): BreakerState.CLOSED,
        (BreakerState.OPEN, _Trigger.PROBED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, _Trigger.TRIPPED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, _Trigger.ABANDONED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, _Trigger.SUCCEEDED): BreakerState.CLOSED,
    },
)


class CircuitBreaker:
    """Opens after a row of failed probes, closes at the first one that succeeds.

    Times are seconds on any clock that never goes back.

    Attributes:
        state: Where it stands.
        away_since: When the first probe of the present row failed; None while there is no such row.
    """

    def __init__(self, *, failures_to_open: int = 3, longest_wait_seconds: float = 60.0) -> None:
        """Start closed.

        Args:
            failures_to_open: Probes in a row that must fail.
            longest_wait_seconds: After so long without any probe a request may make its own.
        """
        self._failures_to_open = failures_to_open
        self._longest_wait_seconds = longest_wait_seconds
        self._failures = 0
        self._last_probe_at = 0.0
        self.state = BreakerState.CLOSED
        self.away_since: float | None = None

    @property
    def is_closed(self) -> bool:
        """Whether requests are let through."""
        return self.state is BreakerState.CLOSED

    def owes_a_probe(self, now: float) -> bool:
        """Tell whether a request that comes now should make a probe of its own: there was none for too long."""
        return not self.is_closed and now - self._last_probe_at >= self._longest_wait_seconds

    def probed(self, now: float) -> None:
        """Take note that a probe sets out; its end must be told before the next."""
        self._last_probe_at = now
        self.state = _TABLE.next_state(self.state, _Trigger.PROBED)

    def succeeded(self) -> None:
        """Take note that the probe succeeded."""
        self.state = _TABLE.next_state(self.state, _Trigger.SUCCEEDED)
        self._failures = 0
        self.away_since = None

    def failed(self, now: float) -> bool:
        """Take note that the probe failed; tell whether that has opened the breaker just now."""
        was_closed = self.is_closed
        self._failures += 1
        if self.away_since is None:
            self.away_since = now
        enough = self._failures >= self._failures_to_open
        self.state = _TABLE.next_state(self.state, _Trigger.TRIPPED if enough else _Trigger.FAILED)
        return was_closed and not self.is_closed

    def abandoned(self) -> None:
        """Take note that the probe was broken off."""
        self.state = _TABLE.next_state(self.state, _Trigger.ABANDONED)
