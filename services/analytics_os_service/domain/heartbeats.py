"""Who is alive: the last heartbeat of each service, and when silence becomes an outage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a service last said about itself.

    Attributes:
        status: HEALTHY, DEGRADED or CRITICAL, in the service's own judgement.
        at: When it said so, aware UTC.
        uptime_seconds: Age of its process.
    """

    service: str
    status: str
    at: datetime
    uptime_seconds: float
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_mb: float | None = None
    market_data_age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatRule:
    """When silence becomes an outage.

    Attributes:
        timeout: Longest silence of a service that is well.
        grace: Time after our own start in which nobody is reported.
    """

    timeout: timedelta = timedelta(seconds=15)
    grace: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Outage:
    """A service fell silent.

    Attributes:
        since: Its last heartbeat; for one that was never heard, the moment from which we listened.
        silent_seconds: Length of the silence so far.
    """

    service: str
    since: datetime
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """A service that was reported silent is back."""

    service: str
    since: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One line of the heartbeat table.

    Attributes:
        status: HEALTHY, DEGRADED, CRITICAL (also when silent), or UNKNOWN before the first heartbeat is due.
        age_seconds: Time since the last heartbeat; None when there was none.
        heartbeat: The last heartbeat; None when there was none.
    """

    service: str
    status: str
    age_seconds: float | None
    heartbeat: Heartbeat | None


class HeartbeatTable:
    """The last heartbeat of every service, and which silences were already reported.

    Silence of one service means something only while we hear another (our own heartbeats take the same way over the
    bus). While nobody is heard the bus is away: nobody is declared dead, and afterwards every service gets the time to
    be heard again.
    """

    def __init__(
        self,
        *,
        own_name: str,
        expected: Iterable[str],
        rule: HeartbeatRule,
        started: datetime,
    ) -> None:
        self._own_name = own_name
        self._expected = tuple(expected)
        self._timeout = rule.timeout
        self._listening_since = started
        self._patient_until = started + rule.grace
        self._last: dict[str, Heartbeat] = {}
        self._reported: dict[str, datetime] = {}

    def restore(self, heartbeats: Iterable[Heartbeat], reported: Mapping[str, datetime]) -> None:
        """Take over what was known before a restart: last heartbeats, and ``{service: silent since}``."""
        self._last.update({heartbeat.service: heartbeat for heartbeat in heartbeats})
        self._reported.update(reported)

    def beat(self, heartbeat: Heartbeat, now: datetime) -> Recovery | None:
        """Take in a heartbeat; return the recovery when the service had been reported silent.

        The report stays open until ``recovered`` is called, so that a failed publish can be tried again.
        """
        # A clock that runs ahead of ours must not keep a dead service alive.
        fresh = replace(heartbeat, at=min(heartbeat.at, now))
        known = self._last.get(fresh.service)
        if known is not None and known.at > fresh.at:
            return None
        is_alive = now - fresh.at <= self._timeout
        if is_alive and self._is_deaf(now):
            self._listening_since = now
        self._last[fresh.service] = fresh
        since = self._reported.get(fresh.service)
        return Recovery(fresh.service, since, fresh.at) if since is not None and is_alive else None

    def outages(self, now: datetime) -> list[Outage]:
        """Return the silences that are due to be reported; each until ``reported`` is called."""
        if now < self._patient_until or self._is_deaf(now):
            return []
        return [
            Outage(service, self._silent_since(service), (now - self._silent_since(service)).total_seconds())
            for service in self.services()
            if service != self._own_name and service not in self._reported and self._is_silent(service, now)
        ]

    def reported(self, outage: Outage) -> None:
        """Note that ``outage`` was reported, so that it is reported once."""
        self._reported[outage.service] = outage.since

    def recovered(self, recovery: Recovery) -> None:
        """Note that ``recovery`` was reported."""
        self._reported.pop(recovery.service, None)

    def services(self) -> list[str]:
        """Return the expected services, then the others that were heard, by name."""
        return [*self._expected, *sorted(set(self._last) - set(self._expected))]

    def states(self, now: datetime) -> list[ServiceState]:
        """Return the table at ``now``."""
        return [self._state(service, now) for service in self.services()]

    def _state(self, service: str, now: datetime) -> ServiceState:
        heartbeat = self._last.get(service)
        age = max(0.0, (now - heartbeat.at).total_seconds()) if heartbeat else None
        if self._is_silent(service, now):
            # While nobody is heard, or in the grace after our start, silence proves nothing.
            unproven = self._is_deaf(now) or now < self._patient_until
            return ServiceState(service, "UNKNOWN" if unproven else "CRITICAL", age, heartbeat)
        return ServiceState(service, heartbeat.status if heartbeat else "UNKNOWN", age, heartbeat)

    def _is_silent(self, service: str, now: datetime) -> bool:
        return now - max(self._silent_since(service), self._listening_since) > self._timeout

    def _silent_since(self, service: str) -> datetime:
        heartbeat = self._last.get(service)
        return heartbeat.at if heartbeat else self._listening_since

    def _is_deaf(self, now: datetime) -> bool:
        heard = max((heartbeat.at for heartbeat in self._last.values()), default=None)
        return heard is None or now - heard > self._timeout
