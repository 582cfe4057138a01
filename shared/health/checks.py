"""Looks after dependencies in the background, so that ``/health`` answers at once whatever they do."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

import structlog

from shared.cancellation import end_task
from shared.clock import Clock
from shared.health.contract import DependencyHealth, HealthStatus, ServiceHealth, overall_status
from shared.service import Service

log = structlog.get_logger(__name__)

_NOT_CHECKED = DependencyHealth(status=HealthStatus.DEGRADED, error="not checked yet")


@functools.cache
def software_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("quantum-trader")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True)
class DependencyCheck:
    """How to look after one dependency.

    Attributes:
        probe: Returns the round trip in milliseconds, or raises.
        slow_ms: Above this it is DEGRADED: 100 for Redis, 200 for PostgreSQL, 500 for HTTP (Sprint 3).
        is_critical: The service can do nothing without it.
    """

    probe: Callable[[], Awaitable[float]]
    slow_ms: float
    is_critical: bool = True


class HealthMonitor:
    """Component that checks every dependency again and again and remembers what it found.

    Attributes:
        name: Component name.
    """

    name = "health"

    def __init__(
        self,
        checks: Mapping[str, DependencyCheck],
        *,
        clock: Clock,
        modules: Callable[[], Mapping[str, str]] = dict,
        metrics: Callable[[], Mapping[str, Any]] = dict,
        interval_seconds: float = 5.0,
        recheck_seconds: float = 1.0,
        timeout_seconds: float = 2.0,
    ) -> None:
        """Prepare, without checking.

        Args:
            checks: Dependencies by name.
            clock: Wall clock.
            modules: One line about each part of the service that has more to say than "started".
            metrics: Figures of the service for people; numbers for Prometheus are elsewhere.
            interval_seconds: Time between two checks of a dependency that is well.
            recheck_seconds: The same for one that is not: a moment of slowness should not be told for long.
            timeout_seconds: A check that takes longer has failed.
        """
        self._checks = MappingProxyType(dict(checks))
        self._clock = clock
        self._modules = modules
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._recheck_seconds = recheck_seconds
        self._timeout_seconds = timeout_seconds
        self._began = clock.monotonic()
        self._found: dict[str, DependencyHealth] = dict.fromkeys(checks, _NOT_CHECKED)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._watch(name, check), name=f"health-{name}") for name, check in self._checks.items()
        ]

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*(end_task(task) for task in tasks))

    @property
    def uptime_seconds(self) -> float:
        return self._clock.monotonic() - self._began

    def report(self, service: Service) -> ServiceHealth:
        """Return what is known now; no waiting."""
        critical = frozenset(name for name, check in self._checks.items() if check.is_critical)
        return ServiceHealth(
            service=service.name,
            status=overall_status(self._found, critical, ready=service.ready),
            version=software_version(),
            timestamp=self._clock.now(),
            uptime_seconds=self.uptime_seconds,
            dependencies=dict(self._found),
            modules={**service.modules(), **self._modules()},
            metrics=dict(self._metrics()),
        )

    async def _watch(self, name: str, check: DependencyCheck) -> None:
        while True:
            found = await self._look(check)
            if found.status is not self._found[name].status:
                log.info("dependency_changed", dependency=name, status=found.status.value, error=found.error)
            self._found[name] = found
            is_well = found.status is HealthStatus.OK
            await self._clock.sleep(self._interval_seconds if is_well else self._recheck_seconds)

    async def _look(self, check: DependencyCheck) -> DependencyHealth:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                latency_ms = await check.probe()
        except TimeoutError:
            return DependencyHealth(status=HealthStatus.DOWN, error=f"no answer within {self._timeout_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a probe raises means that the dependency is not usable
            return DependencyHealth(status=HealthStatus.DOWN, error=str(error) or type(error).__name__)
        if latency_ms > check.slow_ms:
            return DependencyHealth(
                status=HealthStatus.DEGRADED, latency_ms=latency_ms, error=f"slower than {check.slow_ms:g} ms"
            )
        return DependencyHealth(status=HealthStatus.OK, latency_ms=latency_ms)
