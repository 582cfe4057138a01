"""Whether a position has its stop, as values that the position carries: since when it had none, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Cover:
    """How long a position stood without a stop for all of it, wall time.

    It counts from the first fill that no stop covers to the exchange's word that a stop of the whole size rests.

    Attributes:
        since: Wall time from which on no stop covers it all; None while one does.
        exposed: Sum of the times that are over.
        first: The time from the first fill to the first stop; None before that stop.
        alerted: A person was told about the present time.
    """

    since: datetime | None = None
    exposed: timedelta = timedelta(0)
    first: timedelta | None = None
    alerted: bool = False

    def at(self, now: datetime, *, is_covered: bool) -> Cover:
        """Return what is true at ``now``."""
        if not is_covered:
            return replace(self, since=self.since or now)
        if self.since is None:
            return self
        passed = max(timedelta(0), now - self.since)
        first = passed if self.first is None else self.first
        return Cover(since=None, exposed=self.exposed + passed, first=first)

    def seconds(self, now: datetime) -> float:
        """Return all time without a stop until ``now``, seconds."""
        return (self.exposed + self.present(now)).total_seconds()

    def present(self, now: datetime) -> timedelta:
        """Return how long there is no stop by now; zero while there is one."""
        return timedelta(0) if self.since is None else max(timedelta(0), now - self.since)


@dataclass(frozen=True, slots=True)
class Protection:
    """What guards a position besides the two orders that rest on the exchange.

    Attributes:
        cover: Its time without a stop.
    """

    cover: Cover = field(default_factory=Cover)
