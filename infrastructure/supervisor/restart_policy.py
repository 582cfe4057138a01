"""What to do when a supervised process has ended: start it again after a delay, or end the whole run. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.backoff import Backoff

#: What a process exits with when a setting is missing or wrong: starting it again gives the same answer.
CONFIGURATION_EXIT = 4


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often and how fast a process may come back.

    Attributes:
        max_restarts: Restarts allowed within ``window_seconds``; 0 means that its death ends the run.
        window_seconds: Older restarts are forgiven.
        backoff: Delay before each restart; the first is short, because a killed service must be back at work fast.
        irreplaceable_because: Said when ``max_restarts`` is 0: what is lost with the process.
    """

    max_restarts: int = 6
    window_seconds: float = 120.0
    backoff: Backoff = field(default=Backoff(base_seconds=0.2, factor=3.0, cap_seconds=20.0))
    irreplaceable_because: str = ""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the process again.

    Attributes:
        delay_seconds: Wait this long first.
    """

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class EndRun:
    """Stop everything.

    Attributes:
        reason: Why, without the name of the process.
        configuration: Whether a wrong setting is the cause.
    """

    reason: str
    configuration: bool = False


def after_exit(exit_code: int, *, policy: RestartPolicy, restarts_at: Sequence[float], now: float) -> Restart | EndRun:
    """Decide what follows an unwanted exit.

    Args:
        exit_code: As the operating system tells it; negative for a signal.
        policy: Of the process that ended.
        restarts_at: Monotonic seconds of its earlier restarts.
        now: Monotonic seconds of the exit.
    """
    if exit_code == CONFIGURATION_EXIT:
        return EndRun("a setting is wrong", configuration=True)
    if policy.max_restarts == 0:
        return EndRun(f"{exit_text(exit_code)}; {policy.irreplaceable_because}")
    recent = sum(1 for moment in restarts_at if now - moment <= policy.window_seconds)
    if recent >= policy.max_restarts:
        return EndRun(
            f"{exit_text(exit_code)} and was already restarted {recent} times within {policy.window_seconds:.0f} s"
        )
    return Restart(policy.backoff.delay(recent + 1))


def exit_text(exit_code: int) -> str:
    """Return how a process ended, in words."""
    return f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
