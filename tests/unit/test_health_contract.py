"""How the state of the dependencies becomes the state of the service."""

from __future__ import annotations

import pytest

from shared.health.contract import HEARTBEAT_STATUS, DependencyHealth, HealthStatus, overall_status

OK = DependencyHealth(status=HealthStatus.OK)
SLOW = DependencyHealth(status=HealthStatus.DEGRADED)
AWAY = DependencyHealth(status=HealthStatus.DOWN)


@pytest.mark.parametrize(
    ("redis", "extra", "ready", "expected"),
    [
        (OK, OK, True, HealthStatus.OK),
        (OK, OK, False, HealthStatus.DEGRADED),
        (SLOW, OK, True, HealthStatus.DEGRADED),
        (OK, AWAY, True, HealthStatus.DEGRADED),
        (AWAY, OK, True, HealthStatus.DOWN),
        (AWAY, AWAY, False, HealthStatus.DOWN),
    ],
)
def test_a_critical_dependency_takes_the_service_down_and_any_other_degrades_it(
    redis: DependencyHealth, extra: DependencyHealth, ready: bool, expected: HealthStatus
) -> None:
    found = {"redis": redis, "extra": extra}

    assert overall_status(found, frozenset({"redis"}), ready=ready) is expected


def test_every_state_has_a_word_for_heartbeats() -> None:
    assert {HEARTBEAT_STATUS[status] for status in HealthStatus} == {"HEALTHY", "DEGRADED", "CRITICAL"}
