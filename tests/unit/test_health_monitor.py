"""What the monitor makes of its checks, whatever they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from shared.clock import ManualClock
from shared.errors import ConfigurationError, ConnectionLostError
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.contract import DependencyHealth, HealthStatus
from shared.health.gauges import HealthGauges
from shared.service import Service
from shared.telemetry.metrics import Metrics
from tests.support.eventually import eventually

START = datetime(2025, 5, 4, 12, tzinfo=UTC)
SERVICE = Service("desk", [])


async def quick() -> float:
    return 1.5


async def slow() -> float:
    return 250.3


async def refuses() -> float:
    raise ConnectionLostError("nobody there")


async def fails_without_words() -> float:
    raise RuntimeError


async def hangs() -> float:
    await asyncio.Event().wait()
    return 0.0


async def is_cancelled_by_its_client() -> float:
    raise asyncio.CancelledError


async def tells_figures() -> DependencyHealth:
    return DependencyHealth(status=HealthStatus.OK, latency_ms=2.0, details={"version": "7.4.7"})


async def tells_figures_slowly() -> DependencyHealth:
    return DependencyHealth(status=HealthStatus.OK, latency_ms=201.0, details={"version": "7.4.7"})


async def tells_what_is_wrong() -> DependencyHealth:
    return DependencyHealth(status=HealthStatus.DEGRADED, latency_ms=900.0, error="half of it is gone")


@pytest.mark.parametrize(
    ("probe", "status", "error"),
    [
        (quick, HealthStatus.OK, None),
        (slow, HealthStatus.DEGRADED, "slower than 200 ms"),
        (refuses, HealthStatus.DOWN, "nobody there"),
        (fails_without_words, HealthStatus.DOWN, "RuntimeError"),
        (hangs, HealthStatus.DOWN, "no answer within 0.01 s"),
        (is_cancelled_by_its_client, HealthStatus.DOWN, "the check was cancelled"),
        (tells_figures, HealthStatus.OK, None),
        (tells_figures_slowly, HealthStatus.DEGRADED, "slower than 200 ms"),
        (tells_what_is_wrong, HealthStatus.DEGRADED, "half of it is gone"),
    ],
)
async def test_each_answer_of_a_dependency_has_its_state(
    probe: Callable[[], Awaitable[float | DependencyHealth]], status: HealthStatus, error: str | None
) -> None:
    monitor = HealthMonitor(
        {"postgres": DependencyCheck(probe, slow_ms=200)}, clock=ManualClock(START), timeout_seconds=0.01
    )
    service = Service("desk", [])
    await service.start()
    assert monitor.report(service).dependencies["postgres"].error == "not checked yet"
    await monitor.start()
    await eventually(lambda: monitor.report(service).dependencies["postgres"].error != "not checked yet")
    report = monitor.report(service)
    assert report.dependencies["postgres"].status is status
    assert report.status is status
    assert report.dependencies["postgres"].error == error
    assert ("version" in report.dependencies["postgres"].details) == (probe in {tells_figures, tells_figures_slowly})
    await monitor.stop()


async def test_a_check_is_repeated_every_five_seconds_and_sooner_when_something_is_wrong() -> None:
    clock, answers = ManualClock(START), iter([1.0, 1000.0, 1.0])

    async def changing() -> float:
        return next(answers)

    monitor = HealthMonitor({"redis": DependencyCheck(changing, slow_ms=100)}, clock=clock)

    def status() -> HealthStatus:
        return monitor.report(SERVICE).dependencies["redis"].status

    await monitor.start()
    await eventually(lambda: status() is HealthStatus.OK)
    await eventually(lambda: clock._sleepers)
    clock.advance(4.9)
    await asyncio.sleep(0)
    assert status() is HealthStatus.OK
    clock.advance(0.1)
    await eventually(lambda: status() is HealthStatus.DEGRADED and clock._sleepers)
    clock.advance(1.0)
    await eventually(lambda: status() is HealthStatus.OK)
    await monitor.stop()


async def test_a_client_that_does_not_let_itself_be_cancelled_is_told_as_down_and_not_asked_twice() -> None:
    """A frozen OK would be the worst: the check itself is what hangs."""
    clock, answer, asked = ManualClock(START), asyncio.Event(), 0

    async def stubborn() -> float:
        nonlocal asked
        asked += 1
        while not answer.is_set():
            try:
                await answer.wait()
            except asyncio.CancelledError:
                continue
        return 1.0

    answer.set()
    monitor = HealthMonitor({"redis": DependencyCheck(stubborn)}, clock=clock, timeout_seconds=0.01)

    def status() -> HealthStatus:
        return monitor.report(SERVICE).dependencies["redis"].status

    await monitor.start()
    await eventually(lambda: status() is HealthStatus.OK and clock._sleepers)
    answer.clear()
    clock.advance(5.0)
    await eventually(lambda: status() is HealthStatus.DOWN)
    clock.advance(60.0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked == 2

    answer.set()
    await eventually(lambda: clock._sleepers)
    clock.advance(1.0)
    await eventually(lambda: status() is HealthStatus.OK)
    assert asked == 3
    await monitor.stop()


async def test_what_a_cause_explains_is_no_alarm_of_its_own() -> None:
    clock, redis_is_there = ManualClock(START), False

    async def redis() -> float:
        if not redis_is_there:
            raise ConnectionLostError("nobody there")
        return 1.0

    monitor = HealthMonitor(
        {"redis": DependencyCheck(redis), "eventbus": DependencyCheck(refuses, explained_by=("redis",))}, clock=clock
    )

    def told() -> dict[str, HealthStatus]:
        return {name: found.status for name, found in monitor.report(SERVICE).dependencies.items()}

    await monitor.start()
    await eventually(lambda: told() == {"redis": HealthStatus.DOWN, "eventbus": HealthStatus.DEGRADED})
    assert monitor.report(SERVICE).dependencies["eventbus"].error == "nobody there; redis DOWN"

    redis_is_there = True
    await eventually(lambda: len(clock._sleepers) == 2)
    clock.advance(1.0)
    await eventually(lambda: told()["redis"] is HealthStatus.OK and len(clock._sleepers) == 2)
    clock.advance(1.0)
    await eventually(lambda: told() == {"redis": HealthStatus.OK, "eventbus": HealthStatus.DOWN})
    await monitor.stop()


def test_a_cause_that_is_not_checked_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'eventbus' is explained by 'reddis', and there is no such check"):
        HealthMonitor({"eventbus": DependencyCheck(quick, explained_by=("reddis",))}, clock=ManualClock(START))


def test_a_part_that_cannot_tell_its_figures_does_not_silence_the_report() -> None:
    def broken() -> dict[str, str]:
        raise KeyError("book")

    monitor = HealthMonitor({}, clock=ManualClock(START), modules=broken, metrics=broken)

    report = monitor.report(SERVICE)

    assert report.status is HealthStatus.DEGRADED  # it has not started
    assert report.modules == report.metrics == {"error": "KeyError: 'book'"}


async def test_the_report_is_also_told_to_prometheus() -> None:
    clock = ManualClock(START)
    metrics = Metrics("desk", clock)
    monitor = HealthMonitor(
        {"redis": DependencyCheck(slow, slow_ms=100), "exchange": DependencyCheck(refuses, is_critical=False)},
        clock=clock,
    )
    metrics.registry.register(HealthGauges(lambda: monitor.report(SERVICE)))
    await monitor.start()
    await eventually(lambda: len(clock._sleepers) == 2)

    lines = metrics.render()[0].decode().splitlines()

    assert 'service_health{service="desk"} 0.5' in lines
    assert 'dependency_health{dependency="redis",service="desk"} 0.5' in lines
    assert 'dependency_health{dependency="exchange",service="desk"} 0.0' in lines
    assert 'dependency_latency_seconds{dependency="redis",service="desk"} 0.2503' in lines
    assert not [line for line in lines if line.startswith('dependency_latency_seconds{dependency="exchange"')]
    await monitor.stop()
