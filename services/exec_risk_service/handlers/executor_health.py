"""What ``/health`` tells about the right to trade: the lease of the account, and the clock."""

from __future__ import annotations

from services.exec_risk_service.handlers.account_lease import AccountLease
from shared.exchange.clock_offset import ClockOffset
from shared.health.checks import DependencyCheck
from shared.health.contract import DependencyHealth, HealthStatus


def lease_check(lease: AccountLease) -> DependencyCheck:
    """Return the check of the lease: DEGRADED while another process has the account, or ours is not renewed."""

    async def probe() -> DependencyHealth:
        why = f"the account is held by {lease.waits_for}" if lease.waits_for else lease.bar()
        return DependencyHealth(status=HealthStatus.OK if why is None else HealthStatus.DEGRADED, error=why)

    return DependencyCheck(probe, is_critical=False)


def clock_check(offset: ClockOffset) -> DependencyCheck:
    """Return the check of the machine's clock: DEGRADED when it is off by more than a person should be told."""

    async def probe() -> DependencyHealth:
        found = offset.measured
        if found is None or offset.is_alarming:
            why = offset.bar() or f"the clock of this machine is {found}"
            return DependencyHealth(status=HealthStatus.DEGRADED, error=why)
        return DependencyHealth(status=HealthStatus.OK, details={"offset_ms": round(found.seconds * 1000, 1)})

    return DependencyCheck(probe, is_critical=False)
