"""Starts the programs of a plan in order, brings back what dies, stops them in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from infrastructure.supervisor.plan import Program, Running, check_plan, dependents
from infrastructure.supervisor.restart_policy import EndRun, Restart, after_exit
from shared.clock import Clock
from shared.errors import ConfigurationError, DeadlineExceededError, QuantumTraderError

#: Seconds between two looks at whether a program is ready.
PROBE_INTERVAL_SECONDS = 0.1


class ProgramState(StrEnum):
    """Where a program is in its life."""

    WAITING = "WAITING"  # for what it depends on
    STARTING = "STARTING"  # launched, not ready yet
    READY = "READY"
    RESTARTING = "RESTARTING"  # dead, waiting for its next launch
    STOPPED = "STOPPED"  # ended on purpose
    FAILED = "FAILED"  # dead for good; the run ends


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """What people and the state file are told about one program.

    Attributes:
        name: As in the plan.
        state: Where it is in its life.
        pid: Process id, None when it does not run.
        restarts: How often it was started again.
    """

    name: str
    state: ProgramState
    pid: int | None
    restarts: int


class _Member:
    """One program of the plan while the supervisor looks after it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.state = ProgramState.WAITING
        self.running: Running | None = None
        self.restarts_at: list[float] = []
        self.was_ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def status(self) -> ProgramStatus:
        pid = None if self.running is None else self.running.pid
        return ProgramStatus(self.program.name, self.state, pid, len(self.restarts_at))


class Supervisor:
    """Looks after the programs of one run.

    Args:
        programs: The plan.
        clock: Wall clock, for delays and time limits.
        on_change: Told of every change of a program's status.

    Raises:
        ConfigurationError: The plan could never start.
    """

    def __init__(
        self, programs: Sequence[Program], *, clock: Clock, on_change: Callable[[ProgramStatus], None] = lambda _: None
    ) -> None:
        check_plan(programs)
        self._programs = tuple(programs)
        self._clock = clock
        self._on_change = on_change
        self._members = {program.name: _Member(program) for program in programs}
        self._failure: asyncio.Event = asyncio.Event()
        self._error: QuantumTraderError | None = None

    def statuses(self) -> dict[str, ProgramStatus]:
        """Return the status of every program, in the order of the plan."""
        return {name: member.status for name, member in self._members.items()}

    async def start(self) -> None:
        """Start everything; return when every program is ready.

        Raises:
            ConfigurationError: A program says that a setting is wrong.
            DeadlineExceededError: A program did not become ready in time.
            QuantumTraderError: A program died and may not, or can no longer, be restarted.
        """
        for member in self._members.values():
            member.task = asyncio.create_task(self._look_after(member), name=f"supervise {member.program.name}")
        all_ready = asyncio.ensure_future(asyncio.gather(*(m.was_ready.wait() for m in self._members.values())))
        failed = asyncio.ensure_future(self._failure.wait())
        try:
            await asyncio.wait((all_ready, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            all_ready.cancel()
            failed.cancel()
            await asyncio.gather(all_ready, failed, return_exceptions=True)
        if self._error is not None:
            raise self._error

    async def failed(self) -> NoReturn:
        """Wait until a program ends the run, then raise what ``start`` would have raised."""
        await self._failure.wait()
        assert self._error is not None
        raise self._error

    async def stop_program(self, name: str) -> None:
        """End one program on purpose; it is not restarted, the others go on."""
        await self._put_down(self._members[name])

    async def stop(self) -> None:
        """End every program, each after all that depend on it."""
        await asyncio.gather(*(self._put_down_after_dependents(member) for member in self._members.values()))

    async def _put_down_after_dependents(self, member: _Member) -> None:
        for name in dependents(self._programs, member.program.name):
            await self._members[name].ended.wait()
        await self._put_down(member)

    async def _put_down(self, member: _Member) -> None:
        if member.task is not None:
            member.task.cancel()
            await asyncio.gather(member.task, return_exceptions=True)
        if member.state is not ProgramState.FAILED:
            self._enter(member, ProgramState.STOPPED)
        member.ended.set()

    async def _look_after(self, member: _Member) -> None:
        """Live the whole life of one program; cancelled to end it."""
        try:
            for name in member.program.depends_on:
                await self._members[name].was_ready.wait()
            while True:
                self._enter(member, ProgramState.STARTING)
                member.running = await _launch_or_undo(member.program)
                self._enter(member, ProgramState.STARTING)
                exit_code = await self._watch(member, member.running)
                await self._restart_or_end_run(member, exit_code)
        except QuantumTraderError as error:
            self._end_run(member, error)
        except Exception as error:  # noqa: BLE001 - whatever it is: a program that nobody looks after must end the run
            reason = f"{type(error).__name__}: {error}"
            self._end_run(member, QuantumTraderError(f"{member.program.name} could not be started: {reason}"))
        finally:
            if member.running is not None:
                await member.running.stop(member.program.grace_seconds)
                member.running = None

    async def _watch(self, member: _Member, running: Running) -> int:
        """Follow one launch to its exit code, telling readiness on the way."""
        exited = asyncio.ensure_future(running.wait())
        try:
            if await self._becomes_ready(member, exited):
                self._enter(member, ProgramState.READY)
                member.was_ready.set()
            elif not exited.done():
                await self._give_up_waiting(member, running)
            return await exited
        finally:
            exited.cancel()

    async def _becomes_ready(self, member: _Member, exited: asyncio.Future[int]) -> bool:
        deadline = self._clock.monotonic() + member.program.start_timeout_seconds
        while not exited.done() and self._clock.monotonic() < deadline:
            if await member.program.ready():
                return not exited.done()
            await self._clock.sleep(PROBE_INTERVAL_SECONDS)
        return False

    async def _give_up_waiting(self, member: _Member, running: Running) -> None:
        """End a program that hangs on its way up: for good at the first launch, else as if it had died."""
        last_words = running.last_words()
        await running.stop(member.program.grace_seconds)
        if not member.was_ready.is_set():
            seconds = member.program.start_timeout_seconds
            raise DeadlineExceededError(
                f"{member.program.name} was not ready within {seconds:.0f} s; {_quoted(last_words)}"
            )

    async def _restart_or_end_run(self, member: _Member, exit_code: int) -> None:
        now = self._clock.monotonic()
        match after_exit(exit_code, policy=member.program.restart, restarts_at=member.restarts_at, now=now):
            case EndRun() as end:
                assert member.running is not None
                raise _end_of_run(member.program.name, end, member.running.last_words())
            case Restart(delay_seconds):
                # What the dead program left behind (its own children) goes before the next launch.
                assert member.running is not None
                await member.running.stop(0.0)
                member.running = None
                member.restarts_at.append(now)
                self._enter(member, ProgramState.RESTARTING)
                await self._clock.sleep(delay_seconds)

    def _end_run(self, member: _Member, error: QuantumTraderError) -> None:
        self._enter(member, ProgramState.FAILED)
        if self._error is None:
            self._error = error
        self._failure.set()

    def _enter(self, member: _Member, state: ProgramState) -> None:
        member.state = state
        self._on_change(member.status)


async def _launch_or_undo(program: Program) -> Running:
    """Launch; when cancelled meanwhile, end what was launched before giving in."""
    launching = asyncio.ensure_future(program.launch())
    try:
        return await asyncio.shield(launching)
    except asyncio.CancelledError:
        running = await launching
        await running.stop(program.grace_seconds)
        raise


def _end_of_run(name: str, end: EndRun, last_words: str) -> QuantumTraderError:
    if end.configuration:
        return ConfigurationError(last_words or f"{name}: {end.reason}")
    return QuantumTraderError(f"{name} {end.reason}; {_quoted(last_words)}")


def _quoted(last_words: str) -> str:
    return f"it last said: {last_words}" if last_words else "it said nothing"
