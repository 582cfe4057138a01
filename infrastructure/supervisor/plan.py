"""The plan of a run: which programs there are, what each needs first, and how it is brought back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infrastructure.supervisor.restart_policy import RestartPolicy
from shared.errors import ConfigurationError

#: Answers whether the program does its work now; must not raise and must not take longer than a few seconds.
Probe = Callable[[], Awaitable[bool]]


class Running(Protocol):
    """A program that was launched.

    Attributes:
        pid: Process id.
    """

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Return the exit code once the program has ended; negative for a signal."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Ask the program to end, and kill it (with all its children) when it has not within ``grace_seconds``."""
        ...

    def last_words(self) -> str:
        """Return the last line that the program wrote, or an empty text."""
        ...


#: Starts the program and returns at once.
Launch = Callable[[], Awaitable[Running]]


@dataclass(frozen=True, slots=True)
class Program:
    """One line of the plan.

    Attributes:
        name: Shown to people, names the log file.
        launch: Starts it.
        ready: Tells when it does its work.
        depends_on: Programs that must be ready before this one is started, and that stop after it.
        restart: What happens when it dies.
        start_timeout_seconds: Longest wait for readiness after each launch.
        grace_seconds: Time between being asked to stop and being killed.
    """

    name: str
    launch: Launch
    ready: Probe
    depends_on: tuple[str, ...] = ()
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    start_timeout_seconds: float = 60.0
    grace_seconds: float = 10.0


def check_plan(programs: Sequence[Program]) -> None:
    """Refuse a plan that could never start.

    Raises:
        ConfigurationError: A name comes twice, a dependency is not in the plan, or dependencies form a circle.
    """
    names = [program.name for program in programs]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"a program is named twice in the plan: {', '.join(names)}")
    for program in programs:
        for needed in program.depends_on:
            if needed not in names:
                raise ConfigurationError(f"{program.name} depends on {needed!r}, which is not in the plan")
    start_order(programs)


def start_order(programs: Sequence[Program]) -> list[str]:
    """Return the names so that every program comes after all it depends on; otherwise in the order given.

    Raises:
        ConfigurationError: Dependencies form a circle.
    """
    ordered: list[str] = []
    waiting = list(programs)
    while waiting:
        startable = [program for program in waiting if set(program.depends_on) <= set(ordered)]
        if not startable:
            raise ConfigurationError(f"programs wait for each other: {', '.join(p.name for p in waiting)}")
        ordered.append(startable[0].name)
        waiting.remove(startable[0])
    return ordered


def dependents(programs: Sequence[Program], name: str) -> list[str]:
    """Return the programs that need ``name``."""
    return [program.name for program in programs if name in program.depends_on]
