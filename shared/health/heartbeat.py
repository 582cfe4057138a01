"""``service.heartbeat``: a sign of life that carries progress; a loop beside a stuck one proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import psutil
import structlog

from shared.bus.event_bus import EventBus
from shared.bus.progress import BusProgress
from shared.cancellation import end_task
from shared.clock import Clock
from shared.events.v3 import ServiceHeartbeatPayload
from shared.health.checks import HealthMonitor
from shared.health.contract import HEARTBEAT_STATUS
from shared.service import Service

log = structlog.get_logger(__name__)

_MEBIBYTE = 1024 * 1024


class ReportsProgress(EventBus, Protocol):
    """A bus that can tell how consuming goes."""

    def progress(self) -> BusProgress: ...


class Heartbeat:
    """Component that publishes the state of this process at a fixed pace of wall time.

    Attributes:
        name: Component name.
    """

    name = "heartbeat"

    def __init__(
        self,
        *,
        bus: ReportsProgress,
        service: Callable[[], Service],
        health: HealthMonitor,
        clock: Clock,
        interval_seconds: float,
        market_data_age: Callable[[], float | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            bus: Where heartbeats go; its progress is told with them.
            service: Returns the service that this component is a part of.
            health: What is known of the dependencies.
            clock: Wall clock.
            interval_seconds: Time between two heartbeats.
            market_data_age: Age of the newest price, market seconds, in the service that has prices.
        """
        self._bus = bus
        self._service = service
        self._health = health
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._market_data_age = market_data_age
        self._process = psutil.Process()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._process.cpu_percent()  # the first call only sets the mark that the next one measures from
        self._task = asyncio.create_task(self._beat(), name="heartbeat")

    async def stop(self) -> None:
        if self._task is not None:
            await end_task(self._task)
            self._task = None

    def payload(self) -> ServiceHeartbeatPayload:
        """Return the heartbeat of this moment."""
        service, progress = self._service(), self._bus.progress()
        age = self._market_data_age() if self._market_data_age else None
        return ServiceHeartbeatPayload(
            service_name=service.name,
            status=HEARTBEAT_STATUS[self._health.report(service).status],
            uptime_seconds=self._health.uptime_seconds,
            cpu_percent=self._process.cpu_percent(),
            memory_percent=self._process.memory_percent(),
            memory_used_mb=self._process.memory_info().rss / _MEBIBYTE,
            active_tasks=len(asyncio.all_tasks()),
            pending_events=progress.pending,
            processed_events_last_minute=progress.processed_last_minute,
            last_event_id=progress.last_event_id,
            market_data_age_seconds=None if age is None else max(0.0, age),
        )

    async def _beat(self) -> None:
        while True:
            # One after the other: while one waits for a server that hangs, no second one lines up behind it.
            try:
                await self._bus.publish("service.heartbeat", self.payload())
            except Exception as error:  # noqa: BLE001 - silence would tell that the process is dead
                log.warning("heartbeat_not_published", error=f"{type(error).__name__}: {error}")
            await self._clock.sleep(self._interval_seconds)
