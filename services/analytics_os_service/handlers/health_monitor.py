"""Watches the heartbeats of all services and tells when one falls silent, and when it is back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import structlog

from services.analytics_os_service.domain.archived_event import ArchivedEvent, EventQuery
from services.analytics_os_service.domain.heartbeats import (
    Heartbeat,
    HeartbeatRule,
    HeartbeatTable,
    Outage,
    Recovery,
    ServiceState,
)
from services.analytics_os_service.ports import EventArchive
from shared.bus.event_bus import EventBus
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import TransientError
from shared.events.envelope import Event
from shared.events.v3 import ServiceHeartbeatPayload, SystemAlertPayload
from shared.ids import derive_id
from shared.rpc.commands import GetSystemHealthRequest, GetSystemHealthResult, ServiceHealthEntry

log = structlog.get_logger(__name__)

#: ``metric_name`` of the alerts of this handler, by which it knows them again after a restart.
SILENCE = "heartbeat_age_seconds"
#: Alerts looked through at the start for outages that were told and are not over.
_ALERTS_READ = 500
#: From best to worst.
_LEVELS = ("HEALTHY", "UNKNOWN", "DEGRADED", "CRITICAL")


class HealthMonitor:
    """Handler of heartbeats, and component that looks at the table again and again.

    Attributes:
        name: Component name.
    """

    name = "heartbeat-monitor"

    def __init__(
        self,
        *,
        run_id: str,
        own_name: str,
        expected: tuple[str, ...],
        rule: HeartbeatRule,
        check_interval_seconds: float,
        bus: EventBus,
        archive: EventArchive,
        clock: Clock,
    ) -> None:
        """Prepare, without watching.

        Args:
            run_id: Part of the ids of alerts, so that one outage is one alert, however often it is told.
            own_name: The service that we are; its own silence cannot be noticed by itself.
            expected: Services that must be alive, also those never heard.
            rule: When silence becomes an outage.
            check_interval_seconds: Wall time between two looks.
            bus: Where alerts go.
            archive: Where heartbeats and alerts of an earlier life are found.
            clock: Wall clock.
        """
        self._run_id = run_id
        self._own_name = own_name
        self._expected = expected
        self._rule = rule
        self._check_interval_seconds = check_interval_seconds
        self._bus = bus
        self._archive = archive
        self._clock = clock
        self._table = self._new_table()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Recall what an earlier life knew, and begin to watch; must come before the bus."""
        self._table = self._new_table()
        heard = [_heartbeat_of(record) for record in await self._archive.last_heartbeats(self._expected)]
        self._table.restore(heard, await self._open_outages())
        self._task = asyncio.create_task(self._watch(), name=self.name)

    async def stop(self) -> None:
        if self._task is not None:
            await end_task(self._task)
            self._task = None

    # -- events --------------------------------------------------------------------------------------------------

    async def on_heartbeat(self, event: Event[ServiceHeartbeatPayload]) -> None:
        """Note a sign of life; tell when it ends an outage."""
        payload = event.payload
        heartbeat = Heartbeat(
            service=payload.service_name,
            status=payload.status,
            at=event.metadata.timestamp,
            uptime_seconds=payload.uptime_seconds,
            cpu_percent=payload.cpu_percent,
            memory_percent=payload.memory_percent,
            memory_used_mb=payload.memory_used_mb,
            market_data_age_seconds=payload.market_data_age_seconds,
        )
        recovery = self._table.beat(heartbeat, self._clock.now())
        if recovery is not None:
            await self._tell_recovery(recovery)
            self._table.recovered(recovery)

    async def check(self) -> None:
        """Look at the table once and tell every new outage.

        Raises:
            TransientError: An alert could not be published; the next look tries again.
        """
        for outage in self._table.outages(self._clock.now()):
            await self._tell_outage(outage)
            self._table.reported(outage)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._check_interval_seconds)
            try:
                await self.check()
            except TransientError as error:
                log.warning("alert_not_published", error=str(error))

    async def _tell_outage(self, outage: Outage) -> None:
        log.error("heartbeat_missing", silent_service=outage.service, silent_seconds=outage.silent_seconds)
        alert = SystemAlertPayload(
            alert_type="PERFORMANCE_DEGRADED",
            severity="CRITICAL",
            message=f"{outage.service}: no heartbeat for {outage.silent_seconds:.0f} s",
            component=outage.service,
            metric_name=SILENCE,
            metric_value=outage.silent_seconds,
            threshold_value=self._rule.timeout.total_seconds(),
            recovery_action="the supervisor restarts a process that ended; look at the log of one that still runs",
        )
        name = derive_id("heartbeat-missing", self._run_id, outage.service, outage.since.isoformat())
        await self._bus.publish("system.alert", alert, event_id=name)

    async def _tell_recovery(self, recovery: Recovery) -> None:
        away = (recovery.at - recovery.since).total_seconds()
        log.info("heartbeat_back", service_back=recovery.service, away_seconds=away)
        alert = SystemAlertPayload(
            alert_type="PERFORMANCE_DEGRADED",
            severity="INFO",
            message=f"{recovery.service}: heartbeats are back after {away:.0f} s",
            component=recovery.service,
            metric_name=SILENCE,
            metric_value=away,
            threshold_value=self._rule.timeout.total_seconds(),
        )
        name = derive_id("heartbeat-back", self._run_id, recovery.service, recovery.since.isoformat())
        await self._bus.publish("system.alert", alert, event_id=name)

    # -- questions -----------------------------------------------------------------------------------------------

    def states(self) -> list[ServiceState]:
        """Return the heartbeat table of this moment."""
        return self._table.states(self._clock.now())

    async def get_system_health(self, _request: GetSystemHealthRequest) -> GetSystemHealthResult:
        """Answer the RPC of that name."""
        states = self.states()
        return GetSystemHealthResult(
            status=worst([state.status for state in states]),
            services={state.service: self._entry(state) for state in states},
            timestamp=self._clock.now(),
        )

    def _entry(self, state: ServiceState) -> ServiceHealthEntry:
        heartbeat = state.heartbeat
        return ServiceHealthEntry(
            status=state.status,
            last_heartbeat_age_seconds=state.age_seconds,
            uptime_seconds=heartbeat.uptime_seconds if heartbeat else None,
            cpu_percent=heartbeat.cpu_percent if heartbeat else None,
            memory_percent=heartbeat.memory_percent if heartbeat else None,
            memory_used_mb=heartbeat.memory_used_mb if heartbeat else None,
            market_data_age_seconds=heartbeat.market_data_age_seconds if heartbeat else None,
            reason=reason_for(state, self._rule),
        )

    # -- memory --------------------------------------------------------------------------------------------------

    def _new_table(self) -> HeartbeatTable:
        return HeartbeatTable(
            own_name=self._own_name, expected=self._expected, rule=self._rule, started=self._clock.now()
        )

    async def _open_outages(self) -> dict[str, Any]:
        """Return ``{service: silent since}`` of outages that were told and whose end was not."""
        query = EventQuery(event_type="system.alert", newest_first=True, limit=_ALERTS_READ)
        newest: dict[str, ArchivedEvent] = {}
        for record in await self._archive.find(query):
            if record.payload.get("metric_name") == SILENCE:
                newest.setdefault(record.payload["component"], record)
        return {
            service: record.metadata.timestamp - timedelta(seconds=record.payload["metric_value"])
            for service, record in newest.items()
            if record.payload["severity"] == "CRITICAL"
        }


def worst(levels: list[str]) -> Any:
    """Return the worst of ``levels``, HEALTHY when there are none."""
    return max(levels, key=_LEVELS.index, default="HEALTHY")


def reason_for(state: ServiceState, rule: HeartbeatRule) -> str | None:
    """Return why a service is not healthy, in one line."""
    if state.status == "HEALTHY":
        return None
    if state.age_seconds is None:
        return "no heartbeat yet"
    if state.age_seconds > rule.timeout.total_seconds():
        return f"no heartbeat for {state.age_seconds:.0f} s"
    return f"it reports {state.status}; see its /health"


def _heartbeat_of(record: ArchivedEvent) -> Heartbeat:
    payload = record.payload
    return Heartbeat(
        service=payload["service_name"],
        status=payload["status"],
        at=record.metadata.timestamp,
        uptime_seconds=payload["uptime_seconds"],
        cpu_percent=payload.get("cpu_percent"),
        memory_percent=payload.get("memory_percent"),
        memory_used_mb=payload.get("memory_used_mb"),
        market_data_age_seconds=payload.get("market_data_age_seconds"),
    )
