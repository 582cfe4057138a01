"""Whether the bus does its work: a process that beats beside a stuck consumer is not healthy.

Nor is one whose events would be lost if Redis went away now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from shared.bus.progress import BusProgress
from shared.health.checks import DependencyCheck
from shared.health.contract import DependencyHealth, HealthStatus

#: Without progress for so long a consumer is stuck. Three times the longest wait for one answer of a server (10 s): the
#: slowest healthy round of the read loop is a blocking read (2 s) that goes unanswered, a connect (5 s) and a backoff
#: (5 s).
STUCK_AFTER_SECONDS = 30.0


def consumer_check(
    progress: Callable[[], BusProgress],
    *,
    explained_by: tuple[str, ...] = (),
    stuck_after_seconds: float = STUCK_AFTER_SECONDS,
) -> DependencyCheck:
    """Return the check of a bus's consumer.

    Args:
        progress: ``progress`` of the bus.
        explained_by: The checks of the servers that handlers and the read loop wait for.
        stuck_after_seconds: Longest time that a handler, or a round of the read loop, may take.
    """

    async def probe() -> DependencyHealth:
        return consumer_health(progress(), stuck_after_seconds)

    return DependencyCheck(probe, explained_by=explained_by)


def storage_check(alarm: Callable[[], str | None]) -> DependencyCheck:
    """Return the check of the disk buffer behind the bus; events still flow without it, so it is not critical.

    Args:
        alarm: Tells why events could get lost if Redis went away now; None while all is well.
    """

    async def probe() -> DependencyHealth:
        why = alarm()
        return DependencyHealth(status=HealthStatus.OK if why is None else HealthStatus.DOWN, error=why)

    return DependencyCheck(probe, is_critical=False)


def consumer_health(progress: BusProgress, stuck_after_seconds: float) -> DependencyHealth:
    """Return DOWN for a consumer that is stuck, OK for one that waits, retries, or is slow but moves."""
    return DependencyHealth(
        status=HealthStatus.OK if (why := _why_stuck(progress, stuck_after_seconds)) is None else HealthStatus.DOWN,
        error=why,
        details={
            name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(progress).items()
        },
    )


def _why_stuck(progress: BusProgress, stuck_after_seconds: float) -> str | None:
    if progress.oldest_in_hand_seconds > stuck_after_seconds:
        return (
            f"a handler has been at work on one event for {progress.oldest_in_hand_seconds:.0f} s, "
            f"{progress.pending} events are in hand"
        )
    if progress.seconds_since_read > stuck_after_seconds:
        return f"the read loop has not come round for {progress.seconds_since_read:.0f} s"
    return None
