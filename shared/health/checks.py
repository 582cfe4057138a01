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
from shared.errors import ConfigurationError
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
    """How to look after one dependency, or one part of the process itself.

    Attributes:
        probe: Returns the round trip in milliseconds, or all that it found out; raises when the dependency is not
            usable. It is never called again before it has ended.
        slow_ms: Above this round trip it is DEGRADED; None where time says nothing.
        is_critical: The service can do nothing without it.
        explained_by: Checks whose failure is reason enough for this one to fail, too: while one of them is DOWN, this
            one is only DEGRADED. One cause is one alarm.
    """

    probe: Callable[[], Awaitable[float | DependencyHealth]]
    slow_ms: float | None = None
    is_critical: bool = True
    explained_by: tuple[str, ...] = ()


class HealthMonitor:
    """Checks every dependency again and again and remembers what it found."""

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

        Raises:
            ConfigurationError: A check is explained by one that does not exist.
        """
        _require_known_causes(checks)
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
            modules={**service.modules(), **_told(self._modules)},
            metrics=_told(self._metrics),
        )

    async def _watch(self, name: str, check: DependencyCheck) -> None:
        while True:
            probe = asyncio.create_task(_run(check.probe), name=f"health-probe-{name}")
            try:
                await asyncio.wait({probe}, timeout=self._timeout_seconds)
                # Told before the wait for its end: a client that hangs may take long to let itself be cancelled.
                self._note(name, self._judge(check, probe))
            finally:
                await end_task(probe)
            is_well = self._found[name].status is HealthStatus.OK
            await self._clock.sleep(self._interval_seconds if is_well else self._recheck_seconds)

    def _note(self, name: str, found: DependencyHealth) -> None:
        if found.status is not self._found[name].status:
            tell = log.info if found.status is HealthStatus.OK else log.warning
            tell("dependency_changed", dependency=name, status=found.status.value, error=found.error)
        self._found[name] = found

    def _judge(self, check: DependencyCheck, probe: asyncio.Task[float | DependencyHealth]) -> DependencyHealth:
        if not probe.done():
            found = _down(f"no answer within {self._timeout_seconds:g} s")
        elif probe.cancelled():
            found = _down("the check was cancelled")
        elif (error := probe.exception()) is not None:
            found = _down(str(error) or type(error).__name__)
        else:
            found = _by_time(probe.result(), check.slow_ms)
        return self._unless_explained(found, check)

    def _unless_explained(self, found: DependencyHealth, check: DependencyCheck) -> DependencyHealth:
        causes = [name for name in check.explained_by if self._found[name].status is HealthStatus.DOWN]
        if found.status is not HealthStatus.DOWN or not causes:
            return found
        error = f"{found.error}; {' and '.join(causes)} DOWN"
        return found.model_copy(update={"status": HealthStatus.DEGRADED, "error": error})


async def _run(probe: Callable[[], Awaitable[float | DependencyHealth]]) -> float | DependencyHealth:
    return await probe()


def _down(reason: str) -> DependencyHealth:
    return DependencyHealth(status=HealthStatus.DOWN, error=reason)


def _by_time(answer: float | DependencyHealth, slow_ms: float | None) -> DependencyHealth:
    """Return what a probe found out, DEGRADED when it is well but slow."""
    if not isinstance(answer, DependencyHealth):
        answer = DependencyHealth(status=HealthStatus.OK, latency_ms=round(answer, 3))
    is_slow = slow_ms is not None and answer.latency_ms is not None and answer.latency_ms > slow_ms
    if answer.status is not HealthStatus.OK or not is_slow:
        return answer
    return answer.model_copy(update={"status": HealthStatus.DEGRADED, "error": f"slower than {slow_ms:g} ms"})


def _told(source: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``source`` has to say; a part that cannot tell its figures must not silence the rest."""
    try:
        return dict(source())
    except Exception as error:  # noqa: BLE001 - health answers whatever a part of the service does
        return {"error": f"{type(error).__name__}: {error}"}


def _require_known_causes(checks: Mapping[str, DependencyCheck]) -> None:
    for name, check in checks.items():
        if unknown := [cause for cause in check.explained_by if cause not in checks]:
            raise ConfigurationError(f"check {name!r} is explained by {unknown[0]!r}, and there is no such check")
