"""The heartbeat monitor on a bus: what it tells, what it recalls after a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.analytics_os_service.adapters.memory_archive import MemoryArchive
from services.analytics_os_service.app import AnalyticsOs, assemble
from services.analytics_os_service.domain.archived_event import EventQuery
from services.analytics_os_service.domain.heartbeats import Heartbeat, HeartbeatRule
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.events.envelope import Event, EventPayload
from shared.events.v3 import ServiceHeartbeatPayload
from shared.ids import SeededIds
from shared.policy.memory_store import MemoryPolicyStore
from shared.rpc.commands import GetSystemHealthRequest
from tests.support.eventually import eventually

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWN = "analytics-os-service"
RULE = HeartbeatRule(timeout=timedelta(seconds=15), grace=timedelta(seconds=30))


class Stage:
    """analytics-os on a memory bus, with time moved by hand."""

    def __init__(self, archive: MemoryArchive | None = None, start: datetime = NOON) -> None:
        self.clock = ManualClock(start)
        self.archive = archive or MemoryArchive()
        self.broker = MemoryBroker()
        self.bus = self._bus(OWN, "one")
        self.others = {name: self._bus(name, "one") for name in ("ai-service", "exec-risk-service")}
        self.parts: AnalyticsOs = assemble(
            run_id="run",
            bus=self.bus,
            rpc=None,
            archive=self.archive,
            policy=MemoryPolicyStore(self.clock),
            clock=self.clock,
            heartbeat_rule=RULE,
        )

    def _bus(self, service: str, instance: str) -> MemoryBus:
        return MemoryBus(
            self.broker,
            service=service,
            instance=instance,
            clock=self.clock,
            ids=SeededIds(1),
            market_clock=self.clock,
        )

    async def beat(self, *services: str) -> None:
        for service in services:
            bus = self.bus if service == OWN else self.others[service]
            payload = ServiceHeartbeatPayload(
                service_name=service,
                status="HEALTHY",
                uptime_seconds=1.0,
                cpu_percent=1.0,
                memory_percent=1.0,
                memory_used_mb=1.0,
            )
            # Two instances of seeded ids would draw the same ones.
            name = f"beat-{service}-{self.clock.monotonic()}"
            await bus.publish("service.heartbeat", payload, event_id=name)
        await self.broker.settled()

    async def alerts(self) -> list[tuple[str, str]]:
        await self.broker.settled()
        found = await self.archive.find(EventQuery(event_type="system.alert"))
        return [(record.payload["severity"], record.payload["component"]) for record in found]


ALL = ("ai-service", "exec-risk-service", OWN)


async def test_one_critical_alert_per_outage_and_one_info_when_it_ends() -> None:
    stage = Stage()
    await stage.bus.start()
    stage.clock.advance(40)
    await stage.beat(*ALL)

    for _ in range(5):
        stage.clock.advance(5)
        await stage.beat("exec-risk-service", OWN)
        await stage.parts.monitor.check()
    assert await stage.alerts() == [("CRITICAL", "ai-service")]
    health = await stage.parts.monitor.get_system_health(GetSystemHealthRequest())
    assert (health.status, health.services["ai-service"].status) == ("CRITICAL", "CRITICAL")
    assert health.services["ai-service"].reason == "no heartbeat for 25 s"

    await stage.beat("ai-service")
    stage.clock.advance(1)
    await stage.beat("ai-service")
    await stage.parts.monitor.check()
    assert await stage.alerts() == [("CRITICAL", "ai-service"), ("INFO", "ai-service")]
    assert (await stage.parts.monitor.get_system_health(GetSystemHealthRequest())).status == "HEALTHY"
    await stage.bus.stop()


async def test_an_outage_that_was_told_before_a_restart_is_not_told_again_and_its_end_is() -> None:
    before = Stage()
    await before.bus.start()
    before.clock.advance(40)
    await before.beat(*ALL)
    for _ in range(2):
        before.clock.advance(8)
        await before.beat("exec-risk-service", OWN)
    await before.parts.monitor.check()
    assert await before.alerts() == [("CRITICAL", "ai-service")]
    await before.bus.stop()

    after = Stage(before.archive, start=before.clock.now())
    await after.parts.monitor.start()
    await after.bus.start()
    for _ in range(4):
        after.clock.advance(8)
        await after.beat("exec-risk-service", OWN)
    await after.parts.monitor.check()
    assert await after.alerts() == [("CRITICAL", "ai-service")]
    await after.beat("ai-service")
    assert await after.alerts() == [("CRITICAL", "ai-service"), ("INFO", "ai-service")]
    await after.parts.monitor.stop()
    await after.bus.stop()


async def test_the_watch_goes_on_when_an_alert_cannot_be_published() -> None:
    class Deaf:
        failures = 2
        told: list[str] = []  # noqa: RUF012 - one bus, one test

        async def publish(self, event_type: str, payload: EventPayload, **_: object) -> Event[Any]:
            if self.failures:
                self.failures -= 1
                raise ConnectionLostError("Redis is away")
            self.told.append(event_type)
            return Event(None, payload)  # type: ignore[arg-type]  # nobody reads it

        def subscribe(self, pattern: str, handler: object) -> None: ...

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

    clock, bus = ManualClock(NOON), Deaf()
    parts = assemble(
        run_id="run",
        bus=bus,
        rpc=None,
        archive=MemoryArchive(),
        policy=MemoryPolicyStore(clock),
        clock=clock,
        heartbeat_rule=RULE,
    )
    await parts.monitor.start()

    def told() -> list[str]:
        clock.advance(5)
        parts.monitor._table.beat(Heartbeat(OWN, "HEALTHY", clock.now(), 1.0), clock.now())
        return bus.told

    await eventually(lambda: len(told()) >= 2)
    assert bus.failures == 0
    await parts.monitor.stop()
